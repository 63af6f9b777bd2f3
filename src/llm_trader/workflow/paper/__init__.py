"""An account that trades on paper.

`accounting`  the entries of fills, funding and liquidations; margin and liquidation price
`ledger`      double-entry books in SQLite, and whether they balance
`state`       orders, positions and prices as the ledger has them
`trading`     what fills do to positions and books
`trades`      fills as positions from entry to exit
`broker`      orders, stops and targets against prices and candles
`feed`        stored candles and funding as what a broker sees, in the order of time
"""
