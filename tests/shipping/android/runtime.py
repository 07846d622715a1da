"""LiteRT in a process of its own: scores of each input that comes in, for LiteRt.kt. Argument: the model."""

import struct
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter(sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
length = interpreter.get_tensor(source["index"]).nbytes
sys.stdout.buffer.write(struct.pack(">i", interpreter.get_tensor(target["index"]).nbytes))
sys.stdout.buffer.flush()
while len(values := sys.stdin.buffer.read(length)) == length:
    interpreter.set_tensor(source["index"], np.frombuffer(values, source["dtype"]).reshape(source["shape"]))
    interpreter.invoke()
    sys.stdout.buffer.write(interpreter.get_tensor(target["index"]).tobytes())
    sys.stdout.buffer.flush()
