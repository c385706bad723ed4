# What can be switched off, and how strictly we compile our own code.

option(HEARTH_TORCH "Build torch_backend/ (needs LibTorch)" ON)
option(HEARTH_GRPC "Build proto/, frontend/, client/ and hearthd (needs gRPC and Boost)" ON)
option(HEARTH_TESTS "Build the tests" ON)
option(HEARTH_BENCH "Build tests/bench" OFF)
option(HEARTH_FUZZ "Build the libFuzzer targets (needs clang)" OFF)
set(HEARTH_SANITIZE "" CACHE STRING "address,undefined or thread; empty for none")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
# -g1 keeps line numbers for backtraces and perf at a fraction of the link time.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")

find_program(HEARTH_CCACHE ccache)
if(HEARTH_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # With a base folder one clone's objects serve the next one's build.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${HEARTH_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()
find_program(HEARTH_MOLD mold)
if(HEARTH_MOLD AND NOT HEARTH_SANITIZE)
  add_link_options(-fuse-ld=mold)
endif()

if(HEARTH_SANITIZE)
  add_compile_options(-fsanitize=${HEARTH_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${HEARTH_SANITIZE})
endif()

# Our own targets only: torch, gRPC and Boost come in as SYSTEM headers.
add_library(hearth_warnings INTERFACE)
target_compile_options(hearth_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor
                       -Werror=unused-result -Werror=return-type)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(hearth_warnings INTERFACE -Wthread-safety)
endif()
