"""Figures of boards: data that is built once, and two writers, for a page and for papers."""

from debiasbench.leaderboard.figures.density import density as density
from debiasbench.leaderboard.figures.figure import Figure as Figure
from debiasbench.leaderboard.figures.groups import groups as groups
from debiasbench.leaderboard.figures.pareto import PARETO as PARETO
from debiasbench.leaderboard.figures.pareto import Worse as Worse
from debiasbench.leaderboard.figures.pareto import pareto as pareto
from debiasbench.leaderboard.figures.ranks import Ranked as Ranked
from debiasbench.leaderboard.figures.ranks import of_ranks as of_ranks
from debiasbench.leaderboard.figures.ranks import ranks as ranks
from debiasbench.leaderboard.figures.svg import STYLE as STYLE
from debiasbench.leaderboard.figures.svg import svg as svg
