"""Studies: the rows of a paper's table, trained, evaluated and put beside the published values (docs/studies.md).

    file.py        the YAML file of a study
    rows.py        rows that are trained: their models, recipes, starting points; training what is missing
    measure.py     evaluation of rows; encoders of util.anchors
    results.py     BD-rates against the anchor, chance, rank correlation
    report.py      the table; plot.py: the plot
    dry_run.py     steps, hours and disk of what is missing
    __main__.py    `python -m util.study`
"""
