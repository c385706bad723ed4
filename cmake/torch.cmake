# LibTorch as one target, torch::headers_and_libs, that only server/torch_backend links, PRIVATE.
#
# The wheel ships its own protobuf and fmt headers, so no other folder may see its include path.
# Where to look: -DTORCH_DIR / $TORCH_DIR (an unpacked LibTorch, or .../site-packages/torch), then
# CMAKE_PREFIX_PATH, then the project's own virtual environment.

set(TORCH_DIR "$ENV{TORCH_DIR}" CACHE PATH "LibTorch: the folder with include/ and lib/")
file(GLOB _venv_torch ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
find_path(TORCH_INCLUDE torch/script.h
          HINTS ${TORCH_DIR}/include PATHS ${CMAKE_PREFIX_PATH} ${_venv_torch}
          PATH_SUFFIXES include NO_DEFAULT_PATH)
if(NOT TORCH_INCLUDE)
  message(FATAL_ERROR "LibTorch was not found. Run ./scripts/quickstart, or set TORCH_DIR to an "
                      "unpacked LibTorch (2.11 or newer), or configure with -DHEARTH_TORCH=OFF.")
endif()
get_filename_component(HEARTH_TORCH_ROOT ${TORCH_INCLUDE} DIRECTORY)
set(HEARTH_TORCH_LIB ${HEARTH_TORCH_ROOT}/lib)
file(STRINGS ${TORCH_INCLUDE}/torch/headeronly/version.h _v REGEX "define TORCH_VERSION_(MAJOR|MINOR) ")
string(REGEX REPLACE ".*MAJOR ([0-9]+).*MINOR ([0-9]+).*" "\\1.\\2" HEARTH_TORCH_VERSION "${_v}")
if(HEARTH_TORCH_VERSION VERSION_LESS 2.11)
  message(FATAL_ERROR "LibTorch ${HEARTH_TORCH_VERSION} in ${HEARTH_TORCH_ROOT} is older than 2.11.")
endif()
message(STATUS "LibTorch ${HEARTH_TORCH_VERSION} in ${HEARTH_TORCH_ROOT}")

add_library(torch_sdk INTERFACE)
target_include_directories(torch_sdk SYSTEM INTERFACE
    ${TORCH_INCLUDE} ${TORCH_INCLUDE}/torch/csrc/api/include)
target_link_libraries(torch_sdk INTERFACE ${HEARTH_TORCH_LIB}/libtorch.so
    ${HEARTH_TORCH_LIB}/libtorch_cpu.so ${HEARTH_TORCH_LIB}/libc10.so)
# A CUDA LibTorch registers its kernels from a library nobody calls by name: keep it linked.
if(EXISTS ${HEARTH_TORCH_LIB}/libtorch_cuda.so)
  target_link_libraries(torch_sdk INTERFACE -Wl,--no-as-needed ${HEARTH_TORCH_LIB}/libtorch_cuda.so
      ${HEARTH_TORCH_LIB}/libc10_cuda.so -Wl,--as-needed)
endif()
