"""An evaluation's numbers made into words and a page; nothing is computed here that counts.

`page`               the HTML file: the verdict on top, then the sections, then Plotly's script
`sections`           what was evaluated, decisions, controls and probes, trials, drift
`forecast_sections`  skill, kinds of neighbours, probabilities, directions, bands, regimes
`beside`             kinds of neighbours beside each other, for the page and the terminal
`charts`             figures as Plotly's JSON, of plain lists
`prose`              the headline, what speaks against trust, and a reading for each section
`summary`            the sentences of the top: what was judged, and what decisions earned
`remarks`            what single sections say of their numbers
`units`              numbers as people read them
`markup`             HTML in pieces, escaped
`report.css`, `report.js`  how the page looks, and what draws the charts
"""
