"""Tables from records, without torch."""

from debiasbench.leaderboard.board import Board as Board
from debiasbench.leaderboard.board import boards as boards
from debiasbench.leaderboard.columns import COLUMNS as COLUMNS
from debiasbench.leaderboard.frame import frame as frame
from debiasbench.leaderboard.gather import distinct as distinct
from debiasbench.leaderboard.pivot import Pivot as Pivot
from debiasbench.leaderboard.pivot import pivots as pivots
from debiasbench.leaderboard.render import FORMATS as FORMATS
from debiasbench.leaderboard.render import render as render
from debiasbench.leaderboard.row import Row as Row
from debiasbench.leaderboard.table import table as table
