"""How good the forecasts of past neighbours were, and how sure one can be of that.

walking and scoring       `dataset`, `walk`, `forecasts`, `windows`, `scores`, `skills`,
                          `probabilities`, `bands`, `slices`, `curves`, `reweighting`
significance and verdict  `significance`, `judging`, `trials`, `gate`
controls and probes       `controls`, `controlling`, `simulated`, `probes`
decisions                 `arms`, `trading`, `performance`
calibration               `calibrating`, which makes what the server loads; `calibration_study`
running                   `plan`, `study`, `examining`, one symbol in one of the `workers`
results                   `results`, and their files: `writing`, `steps`, the folder `report/`
"""
