// The kernels for one instruction set. LORD_FAST_INSTRUCTIONS is its name, and compiler flags
// select it.
#include "kernels.h"

#include "adain.h"
#include "gather.h"
#include "scatter_adam.h"

#define LORD_FAST_JOIN(a, b) a##b
#define LORD_FAST_NAME(instructions) LORD_FAST_JOIN(kernels_, instructions)
#define LORD_FAST_TEXT(instructions) #instructions
#define LORD_FAST_QUOTE(instructions) LORD_FAST_TEXT(instructions)

namespace lord_fast {

extern const Kernels LORD_FAST_NAME(LORD_FAST_INSTRUCTIONS);
const Kernels LORD_FAST_NAME(LORD_FAST_INSTRUCTIONS) = {LORD_FAST_QUOTE(LORD_FAST_INSTRUCTIONS),
                                                        gather, scatter_adam, leaky_adain,
                                                        leaky_adain_backward};

}  // namespace lord_fast
