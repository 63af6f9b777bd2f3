"""What whoever runs a server must see, as Prometheus metrics.

`definitions`      name, type, labels and meaning of every metric; the documentation is made of them
`registry`         the metrics of one server that count, from the definitions; prometheus_client
`requests`         an observer of requests: rate, errors, latency by stage
`answers`          an observer of answers: matches, episodes, verdicts, forecasts to be scored
`forecast_scores`  forecasts that were served, scored when their horizon has passed
`readings`         what is read at a scrape: data, index, caches, queue, calibration, scores
`exposition`       all of them as the text that Prometheus scrapes
"""
