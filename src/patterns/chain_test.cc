// A chain over a real log: what patterns see and may change on the way out and on the way in.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <map>
#include <string>

#include "backends/sqlite/engine.h"
#include "backends/sqlite/event_log.h"
#include "patterns/log_ports.h"
#include "patterns/pattern.h"
#include "runtime/scope.h"

namespace prism {
namespace {

using namespace std::chrono_literals;

class AnyTopic final : public Topics {
 public:
  explicit AnyTopic(std::shared_ptr<EventLog> log) : log_(std::move(log)) {}
  Task<Result<TopicInfo>> ensure(Context context, std::string topic) override {
    TopicSpec spec;
    spec.name = std::move(topic);
    return log_->ensure_topic(std::move(context), std::move(spec));
  }
  Task<Result<std::vector<std::string>>> known(Context /*context*/) override { co_return std::vector<std::string>(); }

 private:
  std::shared_ptr<EventLog> log_;
};

// Shouts on the way out and notes what it has done; whispers again on the way in.
struct Seen {
  std::string topic, id;
  std::vector<std::string> steps;
};

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

class ShoutOut final : public Publisher {
 public:
  ShoutOut(std::unique_ptr<Publisher> next, Seen* seen, std::string name)
      : next_(std::move(next)), seen_(seen), name_(std::move(name)) {}
  Task<Batch<Result<Appended>>> publish(Context context, Batch<Message> messages) override {
    for (Message& m : messages) {
      auto body = co_await m.payload.collect(context, 1000);
      if (!body || body->str() == "refuse me") {
        co_return Batch<Result<Appended>>(messages.size(), fail(Code::invalid_argument, "TOO_RUDE", "no"));
      }
      seen_->topic = m.topic;
      seen_->id = m.id;
      seen_->steps.push_back("out " + name_ + " " + body->str());
      m.payload = Payload(Bytes(upper(body->str())));
      m.set_attribute("shouted_by_" + name_, "yes");
      m.headers.emplace_back("mood", Bytes("loud"));
    }
    co_return co_await next_->publish(std::move(context), std::move(messages));
  }

 private:
  std::unique_ptr<Publisher> next_;
  Seen* seen_;
  std::string name_;
};

class WhisperIn final : public Subscription {
 public:
  WhisperIn(std::unique_ptr<Subscription> next, Seen* seen, std::string name)
      : next_(std::move(next)), seen_(seen), name_(std::move(name)) {}
  Task<Result<Batch<Received>>> receive(Context context, std::size_t max, std::size_t max_bytes) override {
    auto batch = co_await next_->receive(context, max, max_bytes);
    if (!batch) co_return batch;
    for (Received& r : *batch) {
      auto body = co_await r.message.payload.collect(context, 1000);
      if (!body) co_return std::unexpected(std::move(body).error());
      seen_->id = r.message.id;
      seen_->steps.push_back("in " + name_ + (r.message.attribute("shouted_by_" + name_) != nullptr ? " marked" : ""));
      r.message.payload = Payload(Bytes("<" + name_ + body->str() + ">"));
    }
    co_return batch;
  }
  Task<Batch<Settled>> settle(Context context, Batch<Settle> settles) override {
    return next_->settle(std::move(context), std::move(settles));
  }
  Task<void> close(Context context) override { return next_->close(std::move(context)); }

 private:
  std::unique_ptr<Subscription> next_;
  Seen* seen_;
  std::string name_;
};

struct ChainTest : testing::Test {
  ChainTest() {
    std::string pattern = testing::TempDir() + "prism-chain-XXXXXX";
    dir = mkdtemp(pattern.data());
    auto opened = run_blocking(sqlite::Engine::open(runtime, dir + "/db"));
    EXPECT_TRUE(opened) << opened.error().describe();
    engine = *opened;
    log = *run_blocking(sqlite::open_event_log(engine));
    topics = std::make_shared<AnyTopic>(log);
    // Outermost last: "a" sees a publish first, and what is received last.
    chain = make_log_publisher(log, topics);
    for (const char* name : {"b", "a"}) chain = std::make_unique<ShoutOut>(std::move(chain), &seen, name);
  }
  ~ChainTest() override {
    if (subscription != nullptr) run_blocking(subscription->close(Context()));
    run_blocking(log->close(Context()));
    run_blocking(engine->close());
    std::filesystem::remove_all(dir);
  }
  Result<Appended> publish(std::string text) {
    Message m;
    m.topic = "topic";
    m.id = "id-1";
    m.headers.emplace_back("app", Bytes("shop"));
    m.payload = Payload(Bytes(std::move(text)));
    Batch<Message> batch;
    batch.push_back(std::move(m));
    return std::move(run_blocking(chain->publish(Context(), std::move(batch))).front());
  }
  Received receive_one() {
    auto subscriber = make_log_subscriber(log, topics, {});
    GroupSpec spec;
    spec.topic = "topic";
    spec.group = "g";
    subscription = std::move(*run_blocking(subscriber->subscribe(Context(), spec)));
    for (const char* name : {"b", "a"})
      subscription = std::make_unique<WhisperIn>(std::move(subscription), &seen, name);
    while (true) {
      auto batch = run_blocking(subscription->receive(Context().with_timeout(30s), 1, 1000));
      EXPECT_TRUE(batch) << batch.error().describe();
      if (!batch || !batch->empty()) return std::move(batch->front());
    }
  }

  Runtime runtime;
  std::string dir;
  std::shared_ptr<sqlite::Engine> engine;
  std::shared_ptr<EventLog> log;
  std::shared_ptr<Topics> topics;
  std::unique_ptr<Publisher> chain;
  std::unique_ptr<Subscription> subscription;
  Seen seen;
};

// proves: L-07, L-08, L-09, L-11, L-12
TEST_F(ChainTest, PatternsSeeAndChangeMessagesOnBothWays) {
  ASSERT_TRUE(publish("hello"));
  EXPECT_EQ(seen.topic, "topic");
  EXPECT_EQ(seen.id, "id-1");
  EXPECT_EQ(seen.steps, (std::vector<std::string>{"out a hello", "out b HELLO"}));

  seen = {};
  Received got = receive_one();
  EXPECT_EQ(seen.id, "id-1");
  EXPECT_EQ(seen.steps, (std::vector<std::string>{"in b marked", "in a marked"}));
  EXPECT_EQ(run_blocking(got.message.payload.collect(Context(), 1000))->str(), "<a<bHELLO>>");
  std::map<std::string, std::string> headers;
  for (const auto& [name, value] : got.message.headers) headers[name] = value.str();
  EXPECT_EQ(headers["app"], "shop");
  EXPECT_EQ(headers["mood"], "loud");
}

// proves: L-13
TEST_F(ChainTest, AFailureStopsTheChain) {
  const auto refused = publish("refuse me");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, "TOO_RUDE");
  EXPECT_TRUE(seen.steps.empty());
  ASSERT_TRUE(run_blocking(topics->ensure(Context(), "topic")));
  const auto end = run_blocking(log->end(Context(), "topic"));
  ASSERT_TRUE(end);
  EXPECT_TRUE(end->parts().empty());
}

}  // namespace
}  // namespace prism
