#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "backends/client/backoff.h"
#include "backends/client/breaker.h"
#include "backends/client/errors.h"
#include "backends/client/options.h"
#include "backends/client/retry.h"
#include "runtime/loop.h"
#include "runtime/scope.h"

namespace prism::client {
namespace {

using namespace std::chrono_literals;

const Peer kPeer{.backend = "orders", .system = "PostgreSQL", .address = "db:5432"};

TEST(Backoff, DoublesWithJitterUpToItsLongestWait) {
  for (std::uint32_t seed = 1; seed < 50; ++seed) {
    Backoff backoff(100ms, 450ms, seed);
    for (const auto bound : {100ms, 200ms, 400ms, 450ms, 450ms}) {
      const auto wait = backoff.next();
      EXPECT_GE(wait, bound / 2);
      EXPECT_LE(wait, bound);
    }
    EXPECT_EQ(backoff.tries(), 5u);
    backoff.reset();
    EXPECT_EQ(backoff.tries(), 0u);
    EXPECT_LE(backoff.next(), 100ms);
  }
}

TEST(Backoff, DiffersFromOneClientToTheNext) {
  Backoff a(1s, 10s, 1), b(1s, 10s, 20);
  EXPECT_NE(a.next(), b.next());
}

class Breakers : public testing::Test {
 protected:
  Clock::time_point now_ = Clock::now();
  Breaker breaker_{{.failures = 3, .pause = 100ms, .max_pause = 1s}, [this] { return now_; }};
};

TEST_F(Breakers, OpensAfterFailuresInARowAndLetsOneTry) {
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(breaker_.admit());
    breaker_.failed(unavailable(kPeer, "connection refused"));
  }
  breaker_.succeeded();
  EXPECT_FALSE(breaker_.last_error());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(breaker_.admit());
    breaker_.failed(unavailable(kPeer, "connection refused", Retry::unknown_outcome));
  }
  EXPECT_EQ(breaker_.state(), Breaker::State::open);
  const auto refused = breaker_.admit();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, "BACKEND_UNAVAILABLE");
  EXPECT_EQ(refused.error().retry, Retry::safe) << "nothing was sent this time";
  EXPECT_GT(refused.error().retry_after, 0ms);
  EXPECT_LE(refused.error().retry_after, 100ms);
  EXPECT_GT(breaker_.until_next_try(), 0ms);

  now_ += 100ms;
  EXPECT_EQ(breaker_.until_next_try(), 0ms);
  EXPECT_TRUE(breaker_.admit());
  EXPECT_EQ(breaker_.state(), Breaker::State::half_open);
  EXPECT_FALSE(breaker_.admit()) << "one at a time tries";
  breaker_.failed(unavailable(kPeer, "connection refused"));
  EXPECT_EQ(breaker_.state(), Breaker::State::open);
  now_ += 99ms;
  EXPECT_FALSE(breaker_.admit()) << "the second pause is longer";
  now_ += 101ms;
  EXPECT_TRUE(breaker_.admit());
  breaker_.succeeded();
  EXPECT_EQ(breaker_.state(), Breaker::State::closed);
  EXPECT_TRUE(breaker_.admit());
  EXPECT_TRUE(breaker_.admit());
}

TEST_F(Breakers, LetsAnotherTryWhenNothingIsHeardOfTheFirst) {
  breaker_.failed(authentication_failed(kPeer, "wrong password"));
  now_ += 100ms;
  ASSERT_TRUE(breaker_.admit());
  now_ += 999ms;
  EXPECT_FALSE(breaker_.admit());
  now_ += 1ms;
  EXPECT_TRUE(breaker_.admit());
}

TEST_F(Breakers, OpensAtOnceForWhatOnlyAnOperatorMends) {
  breaker_.failed(authentication_failed(kPeer, "password authentication failed"));
  const auto refused = breaker_.admit();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().reason, "BACKEND_AUTHENTICATION_FAILED");
  EXPECT_EQ(refused.error().retry, Retry::never);
}

TEST_F(Breakers, StaysClosedForWhatTheServerSaysOfAnOperation) {
  for (int i = 0; i < 10; ++i) {
    breaker_.failed(permission_denied(kPeer, "relation orders"));
    breaker_.failed({Code::aborted, "VERSION_MISMATCH", {}, {}, Retry::never, {}, {}});
  }
  EXPECT_EQ(breaker_.state(), Breaker::State::closed);
  // A caller that has no patience says nothing of the server, neither for nor against it.
  breaker_.failed(unavailable(kPeer, {}));
  breaker_.failed(unavailable(kPeer, {}));
  breaker_.failed(Context().with_timeout(-1s).over(true));
  breaker_.failed(timed_out(kPeer, {}, Retry::safe));
  EXPECT_EQ(breaker_.state(), Breaker::State::open);
}

TEST(ClientErrors, NameTheServerTheReasonAndNoMore) {
  const Error error = unavailable(kPeer, "connection refused");
  EXPECT_EQ(error.message, "backend \"orders\" (PostgreSQL at db:5432) does not answer: connection refused");
  EXPECT_EQ(error.metadata.at("backend"), "orders");
  EXPECT_EQ(error.retry, Retry::safe);
  const Error full = overloaded(kPeer, {}, 250ms);
  EXPECT_EQ(full.code, Code::resource_exhausted);
  EXPECT_EQ(full.retry_after, 250ms);
  EXPECT_FALSE(is_outage(full));
  EXPECT_FALSE(is_outage(permission_denied(kPeer, {})));
  EXPECT_TRUE(is_outage(tls_failed(kPeer, {})));
}

TEST(RetryWaits, FollowTheErrorAndTheDeadline) {
  const RetryOptions options{.attempts = 3, .backoff = 10ms, .max_backoff = 20ms};
  Error error = unavailable(kPeer, {});
  Backoff backoff(options.backoff, options.max_backoff);
  EXPECT_TRUE(wait_before_retry(error, Context(), options, backoff));
  error.retry_after = 300ms;
  EXPECT_EQ(wait_before_retry(error, Context(), options, backoff), 300ms);
  EXPECT_FALSE(wait_before_retry(error, Context(), options, backoff)) << "three attempts";
  backoff.reset();
  EXPECT_FALSE(wait_before_retry(error, Context().with_timeout(200ms), options, backoff)) << "it would be too late";
  EXPECT_FALSE(wait_before_retry(overloaded(kPeer, {}, 1ms), Context(), options, backoff));
  error.retry = Retry::unknown_outcome;
  EXPECT_FALSE(wait_before_retry(error, Context(), options, backoff));
}

class Retries : public testing::Test {
 protected:
  Task<Result<int>> attempt(Context /*context*/) {
    const int n = ++attempts_;
    if (n < succeeds_at_) co_return fail(unavailable(kPeer, "refused", retry_));
    co_return n;
  }
  Result<int> run(Context context) {
    const RetryOptions options{.attempts = 4, .backoff = 1ms, .max_backoff = 2ms};
    return run_blocking(retry_safe(loop_, std::move(context), options, [this](Context c) { return attempt(c); }));
  }

  EventLoop loop_{"test"};
  int attempts_ = 0;
  int succeeds_at_ = 3;
  Retry retry_ = Retry::safe;
};

TEST_F(Retries, RepeatUntilItWorks) {
  EXPECT_EQ(run(Context()), 3);
  EXPECT_EQ(attempts_, 3);
}

TEST_F(Retries, EndAfterTheLastAttempt) {
  succeeds_at_ = 100;
  const auto result = run(Context());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().reason, "BACKEND_UNAVAILABLE");
  EXPECT_EQ(attempts_, 4);
}

TEST_F(Retries, NeverGuessAnUnknownOutcome) {
  retry_ = Retry::unknown_outcome;
  EXPECT_FALSE(run(Context()));
  EXPECT_EQ(attempts_, 1);
}

TEST_F(Retries, EndWithTheContext) {
  std::stop_source stop;
  stop.request_stop();
  EXPECT_FALSE(run(Context().with_stop(stop.get_token())));
  EXPECT_EQ(attempts_, 1);
}

struct Example {
  std::optional<TlsOptions> tls;
  RetryOptions retry;
  PoolOptions pool;
  TimeoutOptions timeouts;
  BreakerOptions breaker;
};

const config::Schema<Example>& example_schema() {
  using config::Nested;
  static const auto schema =
      config::Schema<Example>("example", "Options as a connector nests them.")
          .field(&Example::tls, "tls", Nested{tls_schema()}.shorthand("enabled"), "Encryption.")
          .field(&Example::retry, "retry", Nested{retry_schema()}.shorthand("attempts"), "Repetition.")
          .field(&Example::pool, "pool", Nested{pool_schema()}.shorthand("connections"), "Connections.")
          .field(&Example::timeouts, "timeouts", Nested{timeout_schema()}, "Times.")
          .field(&Example::breaker, "breaker", Nested{breaker_schema()}, "Breaker.");
  return schema;
}

Result<Example> parse(const std::string& yaml) {
  config::Diagnostics diagnostics;
  const auto node = config::load_text(yaml, {}, diagnostics);
  if (!node) return fail(diagnostics.to_error());
  return example_schema().parse(*node);
}

TEST(ClientOptions, HaveTheDefaultsThatTheirTypesHave) {
  const auto options = parse("{}");
  ASSERT_TRUE(options) << options.error().describe();
  EXPECT_FALSE(uses_tls(options->tls));
  EXPECT_EQ(options->retry.attempts, RetryOptions().attempts);
  EXPECT_EQ(options->retry.backoff, RetryOptions().backoff);
  EXPECT_EQ(options->retry.max_backoff, RetryOptions().max_backoff);
  EXPECT_EQ(options->pool.connections, PoolOptions().connections);
  EXPECT_EQ(options->pool.queue, PoolOptions().queue);
  EXPECT_EQ(options->pool.wait, PoolOptions().wait);
  EXPECT_EQ(options->timeouts.connect, TimeoutOptions().connect);
  EXPECT_EQ(options->timeouts.operation, TimeoutOptions().operation);
  EXPECT_EQ(options->breaker.failures, BreakerOptions().failures);
  EXPECT_EQ(options->breaker.pause, BreakerOptions().pause);
  EXPECT_EQ(options->breaker.max_pause, BreakerOptions().max_pause);
}

TEST(ClientOptions, TakeShortForms) {
  const auto options = parse("tls: true\nretry: 1\npool: {connections: 3, wait: 100ms}\n");
  ASSERT_TRUE(options) << options.error().describe();
  EXPECT_TRUE(uses_tls(options->tls));
  EXPECT_TRUE(options->tls->verify);
  EXPECT_EQ(options->retry.attempts, 1u);
  EXPECT_EQ(options->pool.connections, 3u);
  EXPECT_EQ(options->pool.wait, 100ms);
  EXPECT_FALSE(uses_tls(parse("tls: false")->tls));
}

TEST(ClientOptions, RefuseHalfAPair) {
  const auto options = parse("tls: {cert_file: me.pem}\n");
  ASSERT_FALSE(options);
  EXPECT_EQ(options.error().reason, "MISSING_OPTION");
}

}  // namespace
}  // namespace prism::client
