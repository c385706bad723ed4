// The body of a request as Boost.Beast's parser fills it: pooled memory, each byte copied there once.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/buffers_range.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/optional.hpp>
#include <cstdint>
#include <new>
#include <optional>

#include "server/frontend/growing_buffer.h"

namespace hearth {

// A Body of Boost.Beast's. errc::not_enough_memory: there is none for this one.
struct PooledBody {
  using value_type = std::optional<GrowingBuffer>;  // REQUIRES: set before a body is read

  class reader {
   public:
    template <bool kIsRequest, typename Fields>
    reader(boost::beast::http::header<kIsRequest, Fields>&, value_type& body) : body_(body) {}

    void init(const boost::optional<std::uint64_t>& length, boost::system::error_code& error) {
      error = {};
      if (!length) return;  // chunked
      Try(error, [&] { body_->Reserve(static_cast<std::size_t>(*length)); });
    }
    template <typename Buffers>
    std::size_t put(const Buffers& buffers, boost::system::error_code& error) {
      error = {};
      const std::size_t before = body_->size();
      Try(error, [&] {
        for (const auto buffer : boost::beast::buffers_range_ref(buffers)) body_->Append(buffer.data(), buffer.size());
      });
      return body_->size() - before;
    }
    void finish(boost::system::error_code& error) { error = {}; }

   private:
    template <typename Fn>
    static void Try(boost::system::error_code& error, const Fn& fn) {
      try {
        fn();
      } catch (const std::bad_alloc&) {
        error = make_error_code(boost::system::errc::not_enough_memory);
      }
    }

    value_type& body_;
  };
};

}  // namespace hearth
