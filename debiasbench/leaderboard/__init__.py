"""Tables from records; reads records only, never torch."""

from debiasbench.leaderboard.board import Board as Board
from debiasbench.leaderboard.board import Row as Row
from debiasbench.leaderboard.board import boards as boards
from debiasbench.leaderboard.board import distinct as distinct
from debiasbench.leaderboard.frame import frame as frame
from debiasbench.leaderboard.render import FORMATS as FORMATS
from debiasbench.leaderboard.render import render as render
from debiasbench.leaderboard.table import table as table
