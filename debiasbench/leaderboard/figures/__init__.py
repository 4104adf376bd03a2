"""Figures of boards: data that is built once, and two writers, for a page and for papers."""

from debiasbench.leaderboard.figures.density import density as density
from debiasbench.leaderboard.figures.figure import Figure as Figure
from debiasbench.leaderboard.figures.svg import STYLE as STYLE
from debiasbench.leaderboard.figures.svg import svg as svg
