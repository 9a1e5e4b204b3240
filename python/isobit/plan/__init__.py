"""`isobit plan`: what each algorithm should take on any number of ranks, from a model of its cost.

The model is the core's (`rust/core/src/schedule/model.rs`): counts of what the busiest rank does, times constants.
Here are the constants' file, their fit to what `isobit bench` measured, the table and the picture.
"""
