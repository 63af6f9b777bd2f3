"""From a decision to an order.

`orders`      what is ordered, what an order comes to, and what an account holds; ids of orders
`instrument`  step, tick and least size of a contract, also in a file (`instrument_file`)
`broker`      the protocol behind which paper and exchanges stand
`opening`     the broker that the settings name
`execution`   a decision and a position become orders
`facts`       what the guards go by, asked from a broker
`guards`      rules in code that turn a decision into a HOLD; `kill_switch` is a file
`moved_files` refuses to pass over files at the default places of before
`paper/`      the default broker: fills by candles, books in SQLite
`exchange/`   Binance USD-M and Bybit through ccxt
"""
