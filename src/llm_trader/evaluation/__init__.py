"""How good the forecasts of past neighbours were, and how sure one can be of that.

`scores`        what a forecast lost: CRPS of ensembles, Brier, intervals, directions
`calibrating`   what the server loads: conformal margins, and where neighbours had skill
`significance`  whether one forecast is better than another, allowing for outcomes that overlap
"""
