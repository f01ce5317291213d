// Namespaces whose backend does not answer: at the start, later, and when the file changes meanwhile.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <mutex>
#include <thread>

#include "base/ids.h"
#include "config/schema.h"
#include "namespaces/check.h"
#include "namespaces/parse.h"
#include "namespaces/registry.h"
#include "runtime/scope.h"

namespace prism {
namespace {

using namespace std::chrono_literals;

// A server that a test switches on and off.
class FakeServer {
 public:
  void goes_down(std::string reason = "BACKEND_UNAVAILABLE", Code code = Code::unavailable) {
    const std::lock_guard lock(mutex_);
    down_ = Error{code, std::move(reason), "connection refused", "start it", Retry::safe, {}, {}};
  }
  void comes_back() {
    const std::lock_guard lock(mutex_);
    down_.reset();
    hangs_ = false;
  }
  void hangs() {
    const std::lock_guard lock(mutex_);
    hangs_ = true;
  }
  bool hanging() const {
    const std::lock_guard lock(mutex_);
    return hangs_;
  }
  Result<void> answer() {
    const std::lock_guard lock(mutex_);
    ++asked_;
    if (down_) return fail(*down_);
    return {};
  }
  int asked() const {
    const std::lock_guard lock(mutex_);
    return asked_;
  }

 private:
  mutable std::mutex mutex_;
  std::optional<Error> down_;  // guarded by mutex_, as all
  bool hangs_ = false;
  int asked_ = 0;
};

// Behaves as the embedded log below it, and answers as the server does.
class FakeBackend final : public Backend {
 public:
  FakeBackend(Runtime& runtime, std::unique_ptr<Backend> inner, std::shared_ptr<FakeServer> server)
      : loop_(runtime.next_loop()), inner_(std::move(inner)), server_(std::move(server)) {}
  std::shared_ptr<EventLog> event_log() override { return inner_->event_log(); }
  std::string describe() const override { return "fake at nowhere:1"; }
  Task<Result<void>> check(Context context) override {
    if (server_->hanging()) {
      co_await sleep_for(loop_, context, 1h);
      co_return std::unexpected(context.over(false));
    }
    co_return server_->answer();
  }
  std::optional<ConnectionUse> connections() const override { return ConnectionUse{.idle = 2, .in_use = 1}; }
  Task<void> close(Context context) override { return inner_->close(std::move(context)); }

 private:
  EventLoop& loop_;
  std::unique_ptr<Backend> inner_;
  std::shared_ptr<FakeServer> server_;
};

// "local" is embedded, "remote" the server of the test.
std::string file(const std::string& namespaces, const std::string& backends = "remote: {type: fake}") {
  return "backends: {" + backends + ", local: {type: sqlite, path: DIR/local.db}}\nnamespaces:\n" + namespaces;
}
constexpr char kFar[] = "  - {name: far, client_api: pubsub, backend: {name: remote, topic: far-topic}}\n";
constexpr char kNear[] = "  - {name: near, client_api: pubsub, backend: local}\n";

struct WaitingTest : testing::Test {
  WaitingTest() {
    std::string pattern = testing::TempDir() + "prism-waiting-XXXXXX";
    dir = mkdtemp(pattern.data());
    BackendType type{.name = "fake", .aliases = {}, .capabilities = {"event-log"}, .summary = "a server of a test"};
    type.connect = [this](Context context, Runtime& r, std::string name, config::Node) {
      return connect(std::move(context), r, std::move(name));
    };
    parts.add(std::move(type));
  }
  ~WaitingTest() override {
    if (registry != nullptr) run_blocking(registry->close(Context()));
    registry.reset();
    std::filesystem::remove_all(dir);
  }
  Task<Result<std::unique_ptr<Backend>>> connect(Context context, Runtime& r, std::string name) {
    PRISM_CO_TRY(auto inner, co_await parts.backend("kafka")->embed(std::move(context), r, std::move(name), dir));
    co_return std::make_unique<FakeBackend>(r, std::move(inner), server);
  }
  FileSpec parse(std::string yaml) {
    for (auto at = yaml.find("DIR"); at != std::string::npos; at = yaml.find("DIR")) yaml.replace(at, 3, dir);
    auto parsed = parse_text(yaml, parts);
    EXPECT_TRUE(parsed.ok()) << config::format_text(parsed.diagnostics);
    return std::move(parsed.file);
  }
  Result<void> try_open(const std::string& yaml) {
    auto opened = run_blocking(
        Registry::open(Context().with_timeout(1min), parse(yaml), parts, runtime, metrics,
                       {.data_dir = dir, .holder = uuid7(), .check_every = 10ms, .check_patience = 200ms}));
    if (!opened) return std::unexpected(std::move(opened).error());
    registry = std::move(*opened);
    return {};
  }
  void open(const std::string& yaml = file(std::string(kFar) + kNear)) {
    const auto opened = try_open(yaml);
    ASSERT_TRUE(opened) << opened.error().describe();
  }
  Result<Registry::Replacement> replace(const std::string& yaml, std::set<std::string> abandon = {}) {
    return run_blocking(registry->replace(Context(), parse(yaml), {.abandon = std::move(abandon), .commit = {}}));
  }
  NamespaceHealth health(const std::string& name) {
    for (auto& each : registry->health()) {
      if (each.name == name) return each;
    }
    return {};
  }
  void wait_for(const std::string& name, NamespaceState state) {
    const auto deadline = Clock::now() + 30s;
    while (health(name).state != state) {
      ASSERT_LT(Clock::now(), deadline);
      std::this_thread::sleep_for(1ms);
    }
  }
  Result<Appended> publish(const std::string& ns) {
    auto target = registry->resolve(ns, "");
    if (!target) return std::unexpected(std::move(target).error());
    Message m;
    m.topic = target->topic;
    m.id = uuid7();
    m.payload = Payload(Bytes("x"));
    Batch<Message> batch;
    batch.push_back(std::move(m));
    return std::move(run_blocking(target->ns->publisher().publish(Context(), std::move(batch))).front());
  }
  bool shows(const std::string& line) { return metrics.expose().find(line + "\n") != std::string::npos; }

  std::string dir;
  Components parts = components();
  std::shared_ptr<FakeServer> server = std::make_shared<FakeServer>();
  Runtime runtime;
  Metrics metrics;
  std::unique_ptr<Registry> registry;
};

TEST_F(WaitingTest, TheOthersAreServedAndItOpensByItself) {
  server->goes_down();
  open();
  EXPECT_TRUE(publish("near"));
  const auto refused = publish("far");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, "NAMESPACE_NOT_READY");
  EXPECT_EQ(refused.error().code, Code::unavailable);
  EXPECT_EQ(refused.error().retry, Retry::safe);
  EXPECT_GT(refused.error().retry_after, 0ms);
  EXPECT_EQ(refused.error().metadata.at("backend"), "remote");
  EXPECT_EQ(refused.error().metadata.at("cause"), "BACKEND_UNAVAILABLE");
  EXPECT_NE(refused.error().message.find("connection refused"), std::string::npos);
  // Also by the topic that it alone serves.
  EXPECT_EQ(registry->resolve("", "far-topic").error().reason, "NAMESPACE_NOT_READY");
  EXPECT_EQ(registry->resolve("", "elsewhere").error().reason, "NAMESPACE_NOT_FOUND");

  EXPECT_EQ(health("near").state, NamespaceState::ready);
  const auto why = health("far");
  EXPECT_EQ(why.state, NamespaceState::waiting);
  EXPECT_EQ(why.backend, "remote");
  EXPECT_EQ(why.error->reason, "BACKEND_UNAVAILABLE");
  EXPECT_NE(why.since, WallTime());
  EXPECT_TRUE(shows("prism_namespace_ready{namespace=\"far\"} 0"));
  EXPECT_TRUE(shows("prism_namespace_ready{namespace=\"near\"} 1"));
  EXPECT_TRUE(shows("prism_backend_up{backend=\"remote\"} 0"));

  server->comes_back();
  wait_for("far", NamespaceState::ready);
  EXPECT_TRUE(publish("far"));
  EXPECT_TRUE(publish("near"));
  EXPECT_TRUE(shows("prism_namespace_ready{namespace=\"far\"} 1"));
  EXPECT_TRUE(shows("prism_backend_up{backend=\"remote\"} 1"));
}

TEST_F(WaitingTest, WrongCredentialsAreMendedAtTheServer) {
  server->goes_down("BACKEND_AUTHENTICATION_FAILED", Code::failed_precondition);
  open();
  EXPECT_EQ(health("far").error->reason, "BACKEND_AUTHENTICATION_FAILED");
  server->comes_back();
  wait_for("far", NamespaceState::ready);
}

TEST_F(WaitingTest, OneThatHangsHoldsUpTheStartNoLongerThanTheCheck) {
  server->hangs();
  const auto begun = Clock::now();
  open(file(std::string(kFar) + "  - {name: far2, client_api: pubsub, backend: remote}\n" + kNear));
  EXPECT_LT(Clock::now() - begun, 10s);
  EXPECT_EQ(health("far").error->reason, "BACKEND_UNAVAILABLE");
  EXPECT_EQ(health("far2").state, NamespaceState::waiting);
  EXPECT_TRUE(publish("near"));
  server->comes_back();
  wait_for("far", NamespaceState::ready);
  wait_for("far2", NamespaceState::ready);
}

TEST_F(WaitingTest, TriesAreFewAndJittered) {
  server->goes_down();
  open();
  const auto end = Clock::now() + 400ms;
  while (Clock::now() < end) std::this_thread::sleep_for(5ms);
  // A check every 10 ms at the most, and no hot loop.
  EXPECT_LE(server->asked(), 100);
}

TEST_F(WaitingTest, AServedOneIsDegradedWhileItsBackendIsAway) {
  std::mutex mutex;
  std::vector<NamespaceState> seen;
  open();
  registry->on_health([&](const std::vector<NamespaceHealth>& namespaces) {
    const std::lock_guard lock(mutex);
    for (const auto& ns : namespaces) {
      if (ns.name == "far") seen.push_back(ns.state);
    }
  });
  EXPECT_EQ(health("far").state, NamespaceState::ready);
  server->goes_down();
  wait_for("far", NamespaceState::degraded);
  EXPECT_EQ(health("far").backend, "remote");
  EXPECT_EQ(health("near").state, NamespaceState::ready);
  EXPECT_TRUE(registry->resolve("far", "")) << "it is still asked";
  for (const auto& backend : registry->backend_states()) EXPECT_EQ(backend.up, backend.name != "remote");
  server->comes_back();
  wait_for("far", NamespaceState::ready);
  const auto deadline = Clock::now() + 30s;
  const auto all_seen = [&] {
    const std::lock_guard lock(mutex);
    return seen == std::vector{NamespaceState::ready, NamespaceState::degraded, NamespaceState::ready};
  };
  while (!all_seen()) {
    ASSERT_LT(Clock::now(), deadline);
    std::this_thread::sleep_for(1ms);
  }
  registry->on_health({});
}

TEST_F(WaitingTest, ConnectionsAreShown) {
  open();
  run_blocking(registry->measure(Context()));
  EXPECT_TRUE(shows("prism_backend_connections{backend=\"remote\",state=\"idle\"} 2"));
  EXPECT_TRUE(shows("prism_backend_connections{backend=\"remote\",state=\"in_use\"} 1"));
  EXPECT_TRUE(shows("prism_backend_up{backend=\"remote\"} 1"));
}

TEST_F(WaitingTest, AChangeTakesUpOnlyWhatAnswers) {
  open(file(kNear));
  server->goes_down();
  const auto refused = replace(file(std::string(kFar) + kNear));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, "BACKEND_UNAVAILABLE");
  EXPECT_EQ(refused.error().metadata.at("namespace"), "far");
  EXPECT_TRUE(publish("near"));
  EXPECT_EQ(registry->health().size(), 1u);
  server->comes_back();
  EXPECT_TRUE(replace(file(std::string(kFar) + kNear)));
  EXPECT_TRUE(publish("far"));
}

TEST_F(WaitingTest, WhatWaitsStaysWhereItIsThroughAChange) {
  server->goes_down();
  open();
  // Others may change.
  ASSERT_TRUE(replace(file(std::string(kFar) + kNear + "  - {name: more, client_api: pubsub, backend: local}\n")));
  EXPECT_EQ(health("far").state, NamespaceState::waiting);
  EXPECT_TRUE(registry->resolve("more", ""));
  // So may the connection.
  ASSERT_TRUE(replace(file(std::string(kFar) + kNear, "remote: {type: fake}, unused: {type: fake}")));

  const auto gone = replace(file(kNear));
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().reason, "NAMESPACE_NOT_READY");
  EXPECT_EQ(gone.error().code, Code::failed_precondition);
  const auto moved = replace(file("  - {name: far, client_api: pubsub, backend: {name: remote, topic: other}}\n"));
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().reason, "NAMESPACE_NOT_READY");
  const auto elsewhere = replace(file(std::string(kFar) + kNear, "remote: {type: sqlite, path: DIR/other.db}"));
  ASSERT_FALSE(elsewhere);
  EXPECT_EQ(elsewhere.error().reason, "NAMESPACE_NOT_READY");
  EXPECT_EQ(run_blocking(registry->in_the_way(Context(), parse(file(kNear)))).error().reason, "NAMESPACE_NOT_READY");

  ASSERT_TRUE(replace(file(kNear), {"far"}));
  EXPECT_EQ(publish("far").error().reason, "NAMESPACE_NOT_FOUND");
  EXPECT_FALSE(shows("prism_namespace_ready{namespace=\"far\"} 0"));
}

TEST_F(WaitingTest, MistakesOfTheFileStillRefuseTheStart) {
  server->goes_down();
  // The embedded one is no server that comes back.
  const auto opened = try_open(file(std::string(kFar) + "  - {name: bad, client_api: pubsub, backend: gone}\n",
                                    "remote: {type: fake}, gone: {type: sqlite, path: /nonexistent/x.db}"));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().reason, "DATABASE_CANNOT_OPEN");
}

TEST_F(WaitingTest, ACheckAsksEveryBackendOnce) {
  server->goes_down();
  const FileSpec spec =
      parse(file(std::string(kFar) + kNear + "  - {name: unconfigured, client_api: pubsub, backend: {type: fake}}\n"));
  const auto answers = run_blocking(check_backends(Context(), &spec, &parts, &runtime, 10s));
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[0].error->reason, "BACKEND_NOT_CONFIGURED");
  EXPECT_EQ(answers[1].name, "local");
  EXPECT_FALSE(answers[1].error);
  EXPECT_EQ(answers[2].name, "remote");
  EXPECT_EQ(answers[2].error->reason, "BACKEND_UNAVAILABLE");
  EXPECT_EQ(answers[2].namespaces, std::vector<std::string>{"far"});
  EXPECT_EQ(server->asked(), 1);
}

// proves: F-12
TEST_F(WaitingTest, AConnectionMayStandInTheNamespace) {
  std::mutex mutex;
  std::map<std::string, std::string> connected;
  BackendType type{.name = "inline", .aliases = {}, .capabilities = {"event-log"}, .summary = "a server of a test"};
  struct Options {
    std::vector<std::string> brokers;
    std::optional<std::string> user;
  };
  const auto schema =
      config::Schema<Options>("inline", "A server.")
          .field(&Options::brokers, "brokers", config::ListOf<config::Address>{.element = {}}, "Where it is.")
          .field(&Options::user, "user", config::Text{}, "Who asks.");
  type.validate = schema.validator();
  type.options = schema.shared_info();
  type.connect = [&](Context context, Runtime& r, std::string name, config::Node options) {
    const std::lock_guard lock(mutex);
    const auto* user = options.find("user");
    connected[name] = options.find("brokers")->items().front().text() + (user != nullptr ? " " + user->text() : "");
    return connect(std::move(context), r, std::move(name));
  };
  parts.add(std::move(type));
  open(
      "backends: {named: {type: inline, user: me}}\nnamespaces:\n"
      "  - {name: a, client_api: pubsub, backend: {type: inline, brokers: [one:1]}}\n"
      "  - {name: b, client_api: pubsub, backend: {name: named, brokers: [two:2]}}\n");
  EXPECT_EQ(connected, (std::map<std::string, std::string>{{"inline", "one:1"}, {"named", "two:2 me"}}));
  EXPECT_TRUE(publish("a"));
}

TEST_F(WaitingTest, EndsWhileItWaits) {
  server->hangs();
  open();
  const auto begun = Clock::now();
  run_blocking(registry->close(Context()));
  registry.reset();
  EXPECT_LT(Clock::now() - begun, 10s);
}

}  // namespace
}  // namespace prism
