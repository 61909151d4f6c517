"""Projects that we did not make: which Label Studio they are of, how they are connected, which tasks we reopened"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("created_at", sa.String(), nullable=True))
    op.add_column("projects", sa.Column("connection", sa.String(), nullable=False, server_default="hand"))
    op.add_column("projects", sa.Column("probabilities", sa.String(), nullable=True))
    op.add_column("tasks", sa.Column("overlap_before", sa.Integer(), nullable=True))
