#include "patterns/claim_check/claim_check.h"

#include <gtest/gtest.h>

#include <mutex>

#include "base/ids.h"
#include "patterns/claim_check/cleanup.h"
#include "patterns/claim_check/objects_for_test.h"
#include "patterns/log_ports.h"
#include "runtime/scope.h"

namespace prism::claim_check {
namespace {

// Keeps what reaches the end of the chain.
class Recorder final : public Publisher {
 public:
  explicit Recorder(std::vector<Message>* out, std::optional<Error> error = {}) : out_(out), error_(std::move(error)) {}
  Task<Batch<Result<Appended>>> publish(Context /*c*/, Batch<Message> messages) override {
    Batch<Result<Appended>> results;
    for (auto& m : messages) {
      out_->push_back(std::move(m));
      if (error_) {
        results.emplace_back(std::unexpected(*error_));
      } else {
        results.emplace_back(Appended{});
      }
    }
    co_return results;
  }

 private:
  std::vector<Message>* out_;
  std::optional<Error> error_;
};

struct Pieces final : ByteSource {
  Pieces(std::uint64_t n, bool fails) : left(n), fails_at_end(fails) {}
  Task<Result<Bytes>> next(Context /*c*/, std::size_t max) override {
    if (left == 0 && fails_at_end) co_return fail(Code::invalid_argument, "CHECKSUM_MISMATCH", "x");
    const std::size_t n = std::min<std::uint64_t>({left, max, 10'000});
    left -= n;
    co_return Bytes(std::string(n, 'v'));
  }
  std::uint64_t left;
  bool fails_at_end;
};

Message message(Payload payload, std::string key = {}) {
  Message m;
  m.topic = "test";
  m.id = uuid7();
  m.key = std::move(key);
  m.headers.emplace_back("video_id", Bytes("v1"));
  m.payload = std::move(payload);
  return m;
}
Message message(std::size_t size, std::string key = {}) {
  return message(Payload(Bytes(std::string(size, 'x'))), std::move(key));
}

Batch<Message> batch(Message m) {
  Batch<Message> b;
  b.push_back(std::move(m));
  return b;
}

struct ClaimCheckTest : testing::Test {
  std::shared_ptr<MemoryObjects> store = std::make_shared<MemoryObjects>();
  std::vector<Message> sent;
  Options options{.bucket = "bucket"};

  Batch<Result<Appended>> publish(Batch<Message> messages, std::optional<Error> below = {}) {
    auto publisher = make_publisher(std::make_unique<Recorder>(&sent, std::move(below)), store, options);
    return run_blocking(publisher->publish(Context(), std::move(messages)));
  }
};

// proves: K-01, C-02, C-03
TEST_F(ClaimCheckTest, SmallPayloadStaysInline) {
  ASSERT_TRUE(publish(batch(message(500'000)))[0]);
  EXPECT_EQ(sent[0].attribute("claim_check_id"), nullptr);
  EXPECT_EQ(sent[0].payload.buffered().size(), 500'000U);
  EXPECT_TRUE(store->objects.empty());
}

// proves: K-02, C-01, C-05, C-13, C-14, C-21
TEST_F(ClaimCheckTest, LargePayloadLeavesAReference) {
  ASSERT_TRUE(publish(batch(message(2'000'000)))[0]);
  ASSERT_NE(sent[0].attribute("claim_check_id"), nullptr);
  const std::string id = *sent[0].attribute("claim_check_id");
  EXPECT_EQ(sent[0].payload.size(), 0U);
  EXPECT_EQ(*sent[0].attribute("payload_size"), "2000000");
  EXPECT_EQ(*sent[0].attribute("claim_check_uri"), "s3://bucket/claim-checks/" + id);
  ASSERT_EQ(store->objects.size(), 1U);
  EXPECT_EQ(store->objects.begin()->first, "claim-checks/" + id);
  ASSERT_TRUE(publish(batch(message(2'000'000)))[0]);
  EXPECT_NE(*sent[1].attribute("claim_check_id"), id);
}

// proves: C-01
TEST_F(ClaimCheckTest, ExactlyTheThresholdStaysInline) {
  publish(batch(message(1'000'000)));
  publish(batch(message(Payload(std::make_unique<Pieces>(1'000'000, false), std::nullopt))));
  EXPECT_TRUE(store->objects.empty());
  publish(batch(message(1'000'001)));
  publish(batch(message(Payload(std::make_unique<Pieces>(1'000'001, false), std::nullopt))));
  EXPECT_EQ(store->objects.size(), 2U);
}

// proves: C-27
TEST_F(ClaimCheckTest, FailedUploadPublishesNothing) {
  store->fail_puts = true;
  const auto results = publish(batch(message(2'000'000)));
  EXPECT_EQ(results[0].error().reason, "STORE_DOWN");
  EXPECT_EQ(results[0].error().metadata.at("pattern"), "claim-check");
  EXPECT_TRUE(sent.empty());
}

TEST_F(ClaimCheckTest, AStreamThatBreaksPublishesNothing) {
  const auto results = publish(batch(message(Payload(std::make_unique<Pieces>(2'000'000, true), std::nullopt))));
  EXPECT_EQ(results[0].error().reason, "CHECKSUM_MISMATCH");
  EXPECT_TRUE(sent.empty());
  EXPECT_TRUE(store->objects.empty());
}

TEST_F(ClaimCheckTest, AFailedEntryFailsTheLaterOnesOfItsKey) {
  Batch<Message> messages;
  messages.push_back(message(10, "a"));
  messages.push_back(message(Payload(std::make_unique<Pieces>(2'000'000, true), std::nullopt), "a"));
  messages.push_back(message(2'000'000, "a"));
  messages.push_back(message(10, "b"));
  const auto results = publish(std::move(messages));
  EXPECT_TRUE(results[0]);
  EXPECT_EQ(results[1].error().reason, "CHECKSUM_MISMATCH");
  EXPECT_EQ(results[2].error().reason, "EARLIER_MESSAGE_FAILED");
  EXPECT_TRUE(results[3]);
  EXPECT_EQ(sent.size(), 2U);
  EXPECT_TRUE(store->objects.empty()) << "the upload of the entry that was not sent is removed";
}

// proves: C-32
TEST_F(ClaimCheckTest, TheUploadOfAFailedPublishIsRemovedUnlessItsOutcomeIsUnknown) {
  publish(batch(message(2'000'000)), Error{Code::unavailable, "DOWN", "", "", Retry::safe, {}, {}});
  EXPECT_TRUE(store->objects.empty());
  publish(batch(message(2'000'000)), Error{Code::unavailable, "DOWN", "", "", Retry::unknown_outcome, {}, {}});
  EXPECT_EQ(store->objects.size(), 1U);
}

// proves: L-10
TEST_F(ClaimCheckTest, SaysWhatItIs) {
  EXPECT_EQ(kInfo.name, "claim-check");
  EXPECT_EQ(kInfo.version, "1.0.0");
  ASSERT_EQ(kInfo.backends.size(), 2U);
  EXPECT_EQ(kInfo.backends[0].any_of, std::vector<std::string_view>{"object-store"});
  EXPECT_EQ(kInfo.backends[1].any_of, std::vector<std::string_view>{"event-log"});
}

config::Diagnostics check(const std::string& yaml, Options* out = nullptr) {
  config::Diagnostics diagnostics;
  auto document = config::load_text(yaml, {}, diagnostics);
  if (!document) return diagnostics;
  auto options = read_options(*document, diagnostics);
  if (out != nullptr) *out = options;
  return diagnostics;
}

// proves: C-04
TEST(ClaimCheckOptions, BothSpellingsOfStorageMeanTheSame) {
  Options a;
  Options b;
  EXPECT_FALSE(check("{threshold: 1MB, storage: s3, bucket: b, prefix: p/}", &a).has_errors());
  EXPECT_FALSE(check("{threshold: 1000000, storage: {backend: s3, bucket: b, prefix: p/}}", &b).has_errors());
  EXPECT_EQ(a.threshold, 1'000'000U);
  EXPECT_EQ(b.threshold, a.threshold);
  EXPECT_EQ(a.bucket, "b");
  EXPECT_EQ(b.prefix, "p/");
  EXPECT_EQ(a.expiry, std::chrono::hours(24 * 7));
  EXPECT_TRUE(a.on_consume);
}

TEST(ClaimCheckOptions, RefusesPlacesThatNoStoreTakes) {
  for (const char* bad : {"../x/", "a/../b/", "./", "/a/", "a//b/"}) {
    EXPECT_TRUE(check(std::string("{storage: {backend: s3, prefix: \"") + bad + "\"}}").has("INVALID_VALUE")) << bad;
  }
  EXPECT_TRUE(check("{storage: {backend: s3, bucket: ../../etc}}").has("INVALID_VALUE"));
  for (const char* good : {"", "videos/", "videos/raw-", "a..b/"}) {
    EXPECT_FALSE(check(std::string("{storage: {backend: s3, prefix: \"") + good + "\"}}").has_errors()) << good;
  }
}

TEST(ClaimCheckOptions, RefusesContradictionsAndWhatItCannotDo) {
  EXPECT_TRUE(check("{storage: {backend: s3, ttl: 60}, cleanup: {retention: 61}}").has("CONTRADICTING_OPTIONS"));
  EXPECT_TRUE(check("{cleanup: {strategy: retention, on_consume: true}}").has("CONTRADICTING_OPTIONS"));
  EXPECT_TRUE(check("{compression: gzip}").has("OPTION_NOT_AVAILABLE"));
  EXPECT_TRUE(check("{treshold: 1MB}").has("UNKNOWN_OPTION"));
  EXPECT_FALSE(check("{cleanup: {strategy: on_consume, ttl: 604800}}").has_errors());
  Options o;
  EXPECT_FALSE(check("{cleanup: {on_consume: false, retention: infinite}}", &o).has_errors());
  EXPECT_FALSE(o.on_consume);
  EXPECT_FALSE(o.expiry);
}

}  // namespace
}  // namespace prism::claim_check
