"""The database itself refuses to change or remove ledger entries; two indexes for what the ledger looks up

On SQLite a later migration that rebuilds the ledger's table (batch mode) has to make its triggers anew.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

REFUSAL = "the ledger is append-only"


def upgrade() -> None:
    op.create_index("ix_ledger_event", "ledger", ["project_id", "event"])
    op.create_index("ix_published_prediction", "published", ["project_id", "prediction_id"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'insufficient_privilege'; END $$"
        )
        op.execute(
            "CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change()"
        )
    else:
        for change in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER ledger_refuses_{change} BEFORE {change} ON ledger"
                f" BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
            )
