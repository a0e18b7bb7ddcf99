"""The report: one HTML file that opens offline, for a reader who knows nothing of the project.

`page` puts sections under one another. A section is a function of this package that takes frames and returns a `Section`, and a
template of the same name in `templates/`. A new one needs those two and a line in `assets/report.py`.
"""
