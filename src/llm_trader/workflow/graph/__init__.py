"""The graph of a workflow: from YAML files to nodes whose references are known to fit. No I/O but
the reading of the files.

`loading`     1 read a graph with the files of its nodes, and name every mistake with its place
`yaml_text`   2 YAML into plain values, with the line and column of each
`document`    3 the shape of the files; also the JSON Schema for editors
`kinds`       4 what each type of node takes and gives
`references`  5 `${node.output.field}`, and the types along it
`scenarios`   6 which nodes run where others fail: what a reference can count on
`schedule`    which node runs next
`drawing`     the graph as text and as SVG
"""
