"""The verbs of the command line. Each module holds a function with the verb's name.

The parameters of the function are the verb's flags, and its docstring is the verb's help. The
function calls other packages of lord-fast and prints their results. A parameter `command` receives
the command line, which is recorded in the history of the run or store. Slow imports stay inside
functions, so that help is printed quickly.
"""
