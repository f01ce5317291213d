// What needs no broker.
#include <gtest/gtest.h>

#include <random>

#include "backends/kafka/codec.h"
#include "backends/kafka/event_log.h"
#include "runtime/scope.h"

namespace prism::kafka {
namespace {

TEST(TopicNames, AreWhatKafkaTakesAndComeBack) {
  EXPECT_EQ(encode_topic("orders.v1_a-b"), "orders.v1_a-b");
  EXPECT_EQ(encode_topic("a/b"), "a-x2f-b");
  EXPECT_EQ(encode_topic(".."), "-x2e--x2e-");
  EXPECT_EQ(decode_topic("a-x2f-b"), "a/b");
  EXPECT_EQ(decode_topic("a-xzz-b-x2"), "a-xzz-b-x2");
  std::mt19937 random(3);
  std::set<std::string> all;
  constexpr std::string_view kLetters = "ab-x2f/. \xc3\xa4";
  for (int i = 0; i < 20000; ++i) {
    std::string name(1 + random() % 8, ' ');
    for (char& c : name) c = kLetters[random() % kLetters.size()];
    const std::string wire = encode_topic(name);
    EXPECT_EQ(decode_topic(wire), name);
    EXPECT_EQ(wire.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789._-"), std::string::npos) << wire;
  }
}

TEST(ProgressCodec, KeepsWhatIsAcknowledgedWhateverItIs) {
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    Committed in;
    const std::uint64_t below = random() % 100000;
    in.progress.acked = AckSet(below);
    const std::uint64_t window = random() % 5 == 0 ? kWindowRecords : random() % 300;
    in.progress.delivered_below = below + window;
    for (std::uint64_t o = below + 1; o < below + window; ++o) {
      const auto pick = random() % 8;
      if (round % 4 == 0 ? (o - below) % 2 == 0 : pick < 3) {
        in.progress.acked.add(o);
      } else if (pick == 7) {
        in.progress.attempts.emplace(o, 2 + random() % 300);
      }
    }
    if (round % 3 == 0) in.seek = random_id();
    const std::string text = encode_progress(in);
    EXPECT_LE(text.size(), kMetadataBytes);
    const Committed out = decode_progress(in.progress.acked.below(), text);
    EXPECT_EQ(out.seek, in.seek);
    EXPECT_EQ(out.progress.delivered_below, std::max(in.progress.delivered_below, in.progress.acked.below()));
    for (std::uint64_t o = below; o < below + window + 5; ++o)
      ASSERT_EQ(out.progress.acked.contains(o), in.progress.acked.contains(o)) << round << " " << o;
    // Of attempts the first ones, exactly.
    std::size_t kept = 0;
    for (const auto& [o, n] : out.progress.attempts) {
      EXPECT_EQ(in.progress.attempts.at(o), n);
      ++kept;
    }
    if (in.progress.attempts.size() < 100) EXPECT_EQ(kept, in.progress.attempts.size());
  }
}

TEST(ProgressCodec, TakesWhatOthersCommittedForAnOffset) {
  for (const std::string text : {"", "p1.", "p1.!!", "hello", "p1.AAAA", "p1.Af8", "p1.AP______________"}) {
    const Committed out = decode_progress(42, text);
    EXPECT_EQ(out.progress.acked.below(), 42U) << text;
    EXPECT_FALSE(out.progress.acked.contains(43)) << text;
  }
}

TEST(KafkaEventLog, NeedsNoBrokerToBeOpened) {
#if __has_feature(thread_sanitizer)
  GTEST_SKIP() << "librdkafka begins its threads by thrd_create, which ThreadSanitizer does not know";
#endif
  Runtime runtime;
  Options options;
  options.brokers = {"127.0.0.1:1"};
  options.timeouts.operation = std::chrono::milliseconds(1'000);
  auto log = open_event_log(runtime, "events", options);
  ASSERT_TRUE(log) << log.error().describe();
  const auto checked = run_blocking((*log)->check(Context().with_timeout(std::chrono::seconds(3))));
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().reason, "BACKEND_UNAVAILABLE");
  const auto topic = run_blocking((*log)->topic(Context(), "orders"));
  ASSERT_FALSE(topic);
  EXPECT_EQ(topic.error().reason, "BACKEND_UNAVAILABLE");
  EXPECT_EQ(topic.error().retry, Retry::safe);
  run_blocking((*log)->close(Context()));
  EXPECT_EQ(run_blocking((*log)->topic(Context(), "orders")).error().reason, "LOG_CLOSED");
}

}  // namespace
}  // namespace prism::kafka
