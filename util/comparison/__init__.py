"""Rate-distortion curves from report folders, against each other and against the published tables.

    curves.py     report folders to curves
    bd_rate.py    BD-rate by a library, with refusals
    tables.py     sequences, classes and overall; Markdown and LaTeX
    plots.py      one RD plot per data set
    published.py  the paper's figures (published*.tsv) and a verdict per data set
    __main__.py   `python -m util.comparison`
"""
