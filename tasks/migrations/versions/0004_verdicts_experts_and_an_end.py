"""Whether a model took over, where experts find their tasks, and whether training has ended"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("versions", sa.Column("verdict", sa.JSON(), nullable=True))
    op.add_column("projects", sa.Column("expert_view", sa.Integer(), nullable=True))
    op.add_column("projects", sa.Column("stopped", sa.String(), nullable=True))
