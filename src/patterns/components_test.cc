#include "patterns/components.h"

#include <gtest/gtest.h>

namespace prism {
namespace {

Task<Result<std::unique_ptr<Backend>>> connect(Context, Runtime&, std::string, config::Node) {
  co_return fail(Code::internal, "CONNECTED", {});
}
Task<Result<std::unique_ptr<Backend>>> embed(Context, Runtime&, std::string, std::string) {
  co_return fail(Code::internal, "EMBEDDED", {});
}

BackendType twin() {
  BackendType type{.name = "kafka", .aliases = {"redpanda"}, .capabilities = {"event-log"}, .summary = "twin"};
  type.log = LogLimits{.max_record_bytes = 1, .retention = {}, .setting = {}};
  type.embed = embed;
  return type;
}

BackendType connector() {
  BackendType type{.name = "kafka", .aliases = {}, .capabilities = {"event-log", "lease"}, .summary = "real"};
  type.log = LogLimits{.max_record_bytes = 2, .retention = {}, .setting = {}};
  type.connect = connect;
  return type;
}

// proves: L-02
TEST(Components, JoinAConnectorAndItsTwinInWhicheverOrder) {
  for (const bool twin_first : {true, false}) {
    Components components;
    components.add({.name = "other", .aliases = {}, .capabilities = {}, .summary = {}});
    components.add(twin_first ? twin() : connector());
    components.add(twin_first ? connector() : twin());
    ASSERT_EQ(components.backends.size(), 2u);
    const BackendType* type = components.backend("redpanda");
    ASSERT_NE(type, nullptr) << "where the connector has no aliases those of the twin stay";
    EXPECT_EQ(type->summary, "real");
    EXPECT_EQ(type->capabilities.size(), 2u);
    EXPECT_EQ(type->log->max_record_bytes, 2u);
    EXPECT_TRUE(type->connect);
    EXPECT_TRUE(type->embed);
  }
}

}  // namespace
}  // namespace prism
