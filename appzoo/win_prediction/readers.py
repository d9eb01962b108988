"""Tables of games that are no plain tables: timelines, published Honor of Kings lines, Dota 2 gold graphs."""

from __future__ import annotations

from appzoo.win_prediction.gold_graph import gold_graph_games
from appzoo.win_prediction.published import published_games
from appzoo.win_prediction.timeline import timeline_games

READERS = {
    "timeline.csv": timeline_games,
    "timeline.tsv": timeline_games,
    "timeline.csv.gz": timeline_games,
    "timeline.tsv.gz": timeline_games,
    ".hok.json": published_games,
    "hok_sample_100.json": published_games,
    "gold_graph.csv": gold_graph_games,
}
