#include "server/base/trace_context.h"

#include <gtest/gtest.h>

namespace hearth {
namespace {

constexpr char kExample[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";  // the standard's own

TEST(TraceContext, ReadsAndWritesTheHeader) {
  const auto context = ParseTraceParent(kExample);
  ASSERT_TRUE(context);
  EXPECT_EQ(ToHex(context->trace), "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(ToHex(context->span), "b7ad6b7169203331");
  EXPECT_TRUE(context->sampled);
  EXPECT_EQ(ToTraceParent(*context), kExample);
  EXPECT_FALSE(ParseTraceParent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")->sampled);
}

TEST(TraceContext, ReadsLaterVersionsAsFarAsItKnowsThem) {
  EXPECT_TRUE(ParseTraceParent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-is-new"));
  EXPECT_FALSE(ParseTraceParent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what-is-new"));
}

TEST(TraceContext, TakesNothingElse) {
  for (const char* text : {"", "00", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
                           "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
                           "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                           "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                           "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                           "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
                           "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}) {
    EXPECT_FALSE(ParseTraceParent(text)) << text;
  }
}

TEST(TraceContext, ChildrenAreOfTheSameTraceAndNoTwoAreTheSame) {
  const TraceContext parent = NewTrace(true);
  const TraceContext child = ChildOf(parent);
  EXPECT_EQ(child.trace, parent.trace);
  EXPECT_NE(child.span, parent.span);
  EXPECT_TRUE(child.sampled);
  EXPECT_NE(NewTrace(true).trace, parent.trace);
  EXPECT_TRUE(ParseTraceParent(ToTraceParent(child)));
  const auto request = TraceOf(kExample);
  EXPECT_EQ(ToHex(*request->parent), "b7ad6b7169203331");
  EXPECT_NE(request->span.span, *request->parent);
  EXPECT_FALSE(TraceOf("nothing"));
}

}  // namespace
}  // namespace hearth
