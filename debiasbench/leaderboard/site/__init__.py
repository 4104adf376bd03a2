"""A self-contained static site from records: a folder of pages, or one file to mail."""

from debiasbench.leaderboard.site.build import write_page as write_page
from debiasbench.leaderboard.site.build import write_site as write_site
from debiasbench.leaderboard.site.content import About as About
from debiasbench.leaderboard.site.large import LARGE as LARGE
from debiasbench.leaderboard.site.large import write_large as write_large
