"""The only place where a number becomes text, a table, a plot or a page.

numbers    one number to text: k, M, %, kB
tables     a table as a value, in five forms: text, CSV, JSON, Markdown, HTML
ranking    tables of ranked rows
pages      tables of everything else: models, layers, weights, data, scores, checks
plots      training curves, confusion, the worst mistakes
pareto     accuracy over a cost
lines      measurements of an experiment
predictions  what models make of images
latency    what was timed side by side
receipts   what compression did, stage by stage and tensor by tensor
page       the whole zoo in one HTML file
"""

from zoo.report.exports import export_table
from zoo.report.latency import latency_table
from zoo.report.lines import Line, Panel, Picture, lines_plot
from zoo.report.numbers import count_text, exact_text, image_text, percent_text, ratio_text, score_text, size_text
from zoo.report.pages import (
    cards_table,
    confusion_table,
    cost_table,
    datasets_table,
    evaluation_table,
    facts_table,
    model_table,
    models_table,
    recipes_table,
    speed_table,
    verification_table,
)
from zoo.report.pareto import Reference, pareto_plot, plot_digest
from zoo.report.plots import confusion_plot, curves_plot, mistakes_sheet
from zoo.report.predictions import predictions_table
from zoo.report.ranking import comparison_table, ranking_table
from zoo.report.receipts import layers_table, receipts_table
from zoo.report.tables import (
    FORMATS,
    Column,
    Table,
    footnotes,
    render,
    replace_block,
    table_csv,
    table_html,
    table_json,
    table_markdown,
    table_text,
)

__all__ = [
    "FORMATS",
    "Column",
    "Line",
    "Panel",
    "Picture",
    "Reference",
    "Table",
    "cards_table",
    "comparison_table",
    "confusion_plot",
    "confusion_table",
    "cost_table",
    "count_text",
    "curves_plot",
    "datasets_table",
    "evaluation_table",
    "exact_text",
    "export_table",
    "facts_table",
    "footnotes",
    "image_text",
    "latency_table",
    "layers_table",
    "lines_plot",
    "mistakes_sheet",
    "model_table",
    "models_table",
    "pareto_plot",
    "percent_text",
    "plot_digest",
    "predictions_table",
    "ranking_table",
    "ratio_text",
    "receipts_table",
    "recipes_table",
    "render",
    "replace_block",
    "score_text",
    "size_text",
    "speed_table",
    "table_csv",
    "table_html",
    "table_json",
    "table_markdown",
    "table_text",
    "verification_table",
]
