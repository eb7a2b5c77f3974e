"""A network in whole numbers as plain C: one header and one source file that need nothing but <stdint.h>.

planner    where each value lies in the arena
source     the source file: weights, one descriptor a layer, kernels that the layers share, the calls in order
project    the files, beside them test vectors and a Makefile; compiling and running them
kernels/   the C functions, as they are copied into the source file
"""

from zoo.interop.plain_c.project import CProject, Program, compiled, compiler, export_c, reference

__all__ = ["CProject", "Program", "compiled", "compiler", "export_c", "reference"]
