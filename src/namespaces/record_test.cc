// What stands on the log for a payload that was checked in, as any reader of the log sees it.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/ids.h"
#include "namespaces/parse.h"
#include "namespaces/registry.h"
#include "runtime/scope.h"

namespace prism {
namespace {

using namespace std::chrono_literals;

constexpr char kFile[] = R"(
namespaces:
  - name: videos
    patterns:
      - {type: claim-check, threshold: 1MB, storage: s3, bucket: media, prefix: raw/}
    backend: {type: kafka, topic: videos, partitions: 1}
)";

struct RecordTest : testing::Test {
  RecordTest() {
    std::string pattern = testing::TempDir() + "prism-record-XXXXXX";
    dir = mkdtemp(pattern.data());
    auto parsed = parse_text(kFile, components());
    EXPECT_TRUE(parsed.ok()) << config::format_text(parsed.diagnostics);
    auto opened = run_blocking(Registry::open(Context(), std::move(parsed.file), components(), runtime, metrics,
                                              {.data_dir = dir, .embedded = true, .holder = uuid7()}));
    EXPECT_TRUE(opened) << opened.error().describe();
    registry = std::move(*opened);
  }
  ~RecordTest() override {
    run_blocking(registry->close(Context()));
    std::filesystem::remove_all(dir);
  }
  Record publish(std::size_t size) {
    Message m;
    m.topic = "videos";
    m.id = uuid7();
    m.headers.emplace_back("video_id", Bytes("v-17"));
    m.headers.emplace_back("content-type", Bytes("video/mp4"));
    m.payload = Payload(Bytes(std::string(size, 'v')));
    Batch<Message> batch;
    batch.push_back(std::move(m));
    const auto published = run_blocking(registry->find("videos")->publisher().publish(Context(), std::move(batch)));
    EXPECT_TRUE(published.front()) << published.front().error().describe();

    // A plain reader of the same log, that knows nothing of namespaces.
    auto backend = std::move(*run_blocking(components().backend("kafka")->embed(Context(), runtime, "kafka", dir)));
    auto reader = run_blocking(backend->event_log()->read(Context(), "videos", 0, Start{}));
    EXPECT_TRUE(reader) << reader.error().describe();
    auto records = run_blocking((*reader)->next(Context().with_timeout(30s), 100'000'000));
    EXPECT_TRUE(records) << records.error().describe();
    Record record = std::move(records->back().first);
    run_blocking((*reader)->close(Context()));
    run_blocking(backend->close(Context()));
    return record;
  }

  Runtime runtime;
  Metrics metrics;
  std::string dir;
  std::unique_ptr<Registry> registry;
};

// proves: C-15, C-20
TEST_F(RecordTest, ReferenceSizeAndMetadataInLessThanAKilobyte) {
  for (const std::size_t size : {1'000'001U, 20'000'000U}) {
    const Record record = publish(size);
    std::map<std::string, std::string> headers;
    std::size_t bytes = record.id.size() + record.key.size() + record.body.size();
    for (const auto& [name, value] : record.headers) {
      headers[name] = value.str();
      bytes += name.size() + value.size();
    }
    EXPECT_LT(bytes, 1000U);

    const auto body = nlohmann::json::parse(record.body.view());
    const std::string id = headers.at("prism-claim-check-id");
    EXPECT_EQ(body.at("claim_check_id"), id);
    EXPECT_EQ(body.at("claim_check_uri"), "s3://media/raw/" + id);
    EXPECT_EQ(body.at("size"), size);
    EXPECT_EQ(headers.at("video_id"), "v-17");
    EXPECT_EQ(body.at("video_id"), "v-17");
    EXPECT_EQ(headers.at("content-type"), "video/mp4");
  }
}

}  // namespace
}  // namespace prism
