// Compressed messages, inflated within bounds.
//
// gRPC (1.51 and its neighbours) compares the size of a compressed message with its limit, then inflates it, as large as it
// becomes, into memory that its resource quota does not know of, and compares again: a client's megabyte takes a gigabyte,
// whether or not the client may make the call. Nothing that can be set changes that but to refuse all compression. So the
// library's function is replaced: grpc_msg_decompress() is a symbol of libgrpc's that it calls through its table, where the
// program's own goes first. Another gRPC may have another function there; a test would notice
// (GrpcServerTest.ACompressedMessageIsInflatedNoFurtherThanItMayBeLarge).
#pragma once

#include <cstdint>

namespace hearth {

// From now on, in all of the process. A message stops growing a byte beyond `most`: gRPC refuses it then as it refuses one
// that came as large as that. Messages that are inflated and not yet let go of have `most_together` at a time; INTERNAL
// where one finds no room. Thread-safe.
void LimitInflation(std::uint64_t most, std::uint64_t most_together);

}  // namespace hearth
