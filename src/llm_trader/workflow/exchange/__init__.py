"""An account at an exchange.

`journal`  notes each order before it is sent, so that none is sent twice or forgotten
`venue`    what Binance USD-M (`binance`) and Bybit (`bybit`) offer, through ccxt's client
`broker`   looks up, then places, then protects; reconciles
`opening`  the broker of the settings: the demo's, unless `live` stands twice
"""
