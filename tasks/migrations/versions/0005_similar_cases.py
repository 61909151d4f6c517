"""What a task shows of the reviewed cases most like it"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("published", sa.Column("similar", sa.String(), nullable=True))
