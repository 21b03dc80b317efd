"""The verbs: a module each, with a function of the verb's name.

A verb's parameters are its flags, and its docstring is its help. It calls Python functions of the
other rooms and prints what they return. A parameter `command` is the command line itself, for the
history of the run or the store that the verb writes. Nothing heavy is imported outside functions,
so that help answers at once.
"""
