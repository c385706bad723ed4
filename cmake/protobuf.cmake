# gRPC and protobuf as targets, and hearth_proto_library(): .proto in, static library out.
#
# Both come in as SYSTEM headers, like torch and Boost: our warnings are for our code.

# The module, not a config package: it is what Debian's protobuf 3.21 supports.
find_package(Protobuf 3.21 MODULE REQUIRED)
find_package(gRPC 1.51 CONFIG REQUIRED)
# The standard health service's definition (Debian: grpc-proto). Compiled in, so that reflection can
# describe every service that is listed.
find_path(HEARTH_GRPC_PROTO_ROOT grpc/health/v1/health.proto PATH_SUFFIXES share/grpc-proto REQUIRED)

# hearth_proto_library(TARGET ROOT <dir> PROTOS a.proto sub/b.proto [ROOT <dir> PROTOS ...])
#
# Messages and gRPC stubs of all PROTOS in one static library. Paths are relative to their ROOT and stay
# so in includes: #include "sub/b.grpc.pb.h".
function(hearth_proto_library target)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/gen)
  file(MAKE_DIRECTORY ${out})
  set(generated)
  foreach(word IN LISTS ARGN)
    if(word STREQUAL "ROOT" OR word STREQUAL "PROTOS")
      set(mode ${word})
    elseif(mode STREQUAL "ROOT")
      set(root ${word})
    else()
      string(REGEX REPLACE "\\.proto$" "" stem ${word})
      set(files ${out}/${stem}.pb.cc ${out}/${stem}.pb.h ${out}/${stem}.grpc.pb.cc ${out}/${stem}.grpc.pb.h)
      add_custom_command(
        OUTPUT ${files}
        COMMAND protobuf::protoc --proto_path=${root} --cpp_out=${out} --grpc_out=${out}
                --plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin> ${word}
        DEPENDS ${root}/${word}
        COMMENT "Generating C++ for ${word}"
        VERBATIM)
      list(APPEND generated ${files})
    endif()
  endforeach()
  add_library(${target} STATIC ${generated})
  target_include_directories(${target} SYSTEM PUBLIC ${out})
  target_compile_options(${target} PRIVATE -w)
  target_link_libraries(${target} PUBLIC gRPC::grpc++ protobuf::libprotobuf)
endfunction()
