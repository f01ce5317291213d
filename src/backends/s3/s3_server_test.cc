// What only a real server shows, beside the conformance suites.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "backends/s3/world_for_test.h"
#include "base/crc32c.h"
#include "capabilities/testing/pattern_source.h"

namespace prism::s3 {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr std::uint64_t kMiB = 1UL << 20;

Options secured(const char* ca) {
  Options out = versity();
  out.endpoint = variable("PRISM_TEST_S3_TLS");
  out.tls = client::TlsOptions{.ca_file = variable(ca)};
  return out;
}

Result<void> check(Options options) {
  Runtime runtime;
  const TestClient it(runtime, std::move(options));
  return run_blocking(it.client->check(Context().with_timeout(20s), ""));
}

Result<ObjectInfo> put_into(Options options, std::string bucket, std::size_t size = 1) {
  Runtime runtime;
  const TestClient it(runtime, std::move(options));
  ObjectStore store(it.client, std::move(bucket), runtime.budget());
  return run_blocking(store.put({}, "k", Payload(Bytes(std::string(size, 'x'))), {}));
}

class Servers : public testing::TestWithParam<std::function<Options()>> {};

TEST_P(Servers, KeepTheChecksumOfObjectsInParts) {
  World world(GetParam()());
  const auto put = run_blocking(world.store->put({}, "k", PatternSource::payload({.size = 20 * kMiB + 7}), {}));
  ASSERT_TRUE(put) << put.error().describe();
  EXPECT_THAT(put->etag, HasSubstr("-3"));
  const auto head = run_blocking(world.store->head({}, "k"));
  ASSERT_TRUE(head) << head.error().describe();
  EXPECT_EQ(head->crc32c, put->crc32c);
  EXPECT_EQ(head->crc32c, crc32c(0, PatternSource::bytes(0, 20 * kMiB + 7)));
  EXPECT_EQ(head->etag, put->etag);
}

TEST_P(Servers, HaveConditionsForObjectsInParts) {
  World world(GetParam()());
  const auto put = [&](PutOptions options) {
    return run_blocking(world.store->put({}, "k", PatternSource::payload({.size = 9 * kMiB}), std::move(options)));
  };
  const auto first = put({.if_absent = true});
  ASSERT_TRUE(first) << first.error().describe();
  const auto second = put({.if_absent = true});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().reason, "OBJECT_EXISTS");
  const auto other = put({.if_match = "another"});
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().reason, "PRECONDITION_FAILED");
  EXPECT_TRUE(put({.if_match = first->etag}));
  EXPECT_EQ(run_blocking(world.store->abort_uploads({}, "", wall_now() + 24h)), 0U);
}

TEST_P(Servers, ListAndRemoveMoreThanOnePage) {
  World world(GetParam()());
  std::vector<std::string> keys;
  for (int i = 0; i < 1100; ++i) keys.push_back("many/" + std::to_string(10'000 + i));
  for (std::size_t from = 0; from < keys.size(); from += 100) {
    std::vector<Task<Result<ObjectInfo>>> puts;
    for (std::size_t i = from; i < from + 100; ++i)
      puts.push_back(world.store->put({}, keys[i], Payload(Bytes("x")), {}));
    for (const auto& put : run_blocking(when_all(std::move(puts)))) ASSERT_TRUE(put) << put.error().describe();
  }
  const auto listed = run_blocking(world.store->list({}, "many/", "", 5000));
  ASSERT_TRUE(listed);
  std::vector<std::string> seen;
  for (const ObjectInfo& info : *listed) seen.push_back(info.key);
  EXPECT_EQ(seen, keys);
  for (const auto& removed : run_blocking(world.store->remove({}, keys))) EXPECT_TRUE(removed);
  EXPECT_TRUE(run_blocking(world.store->list({}, "", "", 10))->empty());
}

// A part that is too large to be held goes out as it comes.
TEST_P(Servers, TakePartsThatAreStreamed) {
  World world(GetParam()());
  const auto tiny = ByteBudget::make(world.runtime.next_loop(), 1);
  ObjectStore store(world.client(), world.bucket, tiny);
  for (const std::uint64_t size : {16 * kMiB, 20 * kMiB + 77'777}) {
    const auto put = run_blocking(store.put({}, "k", PatternSource::payload({.size = size}), {}));
    ASSERT_TRUE(put) << put.error().describe();
    EXPECT_EQ(put->size, size);
    auto got = run_blocking(store.get({}, "k", 0, std::nullopt));
    ASSERT_TRUE(got);
    EXPECT_EQ(got->first.crc32c, put->crc32c);
    EXPECT_EQ(got->first.size, size);
    const auto content = run_blocking(got->second.collect({}, 1UL << 30));
    ASSERT_TRUE(content) << content.error().describe();
    EXPECT_TRUE(content->view() == PatternSource::bytes(0, size));
  }
  for (const std::uint64_t announced : {16 * kMiB, 18 * kMiB}) {
    const auto wrong = run_blocking(store.put(
        {}, "k2", Payload(std::make_unique<PatternSource>(PatternSource::Options{.size = 17 * kMiB}), announced), {}));
    ASSERT_FALSE(wrong);
    EXPECT_EQ(wrong.error().reason, "PAYLOAD_SIZE_MISMATCH");
  }
  EXPECT_EQ(run_blocking(store.abort_uploads({}, "", wall_now() + 24h)), 0U);
  EXPECT_EQ(tiny->used(), 0U);
}

std::size_t peak_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoul(line.substr(6));
  }
  return 0;
}

Task<int> stream_through(ObjectStore* store, std::string key, std::uint64_t size) {
  auto put = co_await store->put({}, key, PatternSource::payload({.size = size, .piece = 131072}, false), {});
  if (!put) co_return 1;
  auto got = co_await store->get({}, key, 0, std::nullopt);
  if (!got) co_return 1;
  std::uint32_t crc = 0;
  while (true) {
    auto piece = co_await got->second.next({}, 131072);
    if (!piece) co_return 1;
    if (piece->empty()) break;
    crc = crc32c(crc, piece->view());
  }
  co_return crc == put->crc32c ? 0 : 1;
}

// proves: C-25 (for the object store)
TEST_P(Servers, MemoryStaysFlat) {
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  GTEST_SKIP() << "sanitizers keep memory of their own";
#endif
#endif
  World world(GetParam()());
  ASSERT_EQ(run_blocking(stream_through(world.store.get(), "warm", 40 * kMiB)), 0);
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak begins anew
  const std::size_t before = peak_kib();
  std::vector<Task<int>> streams;
  for (int i = 0; i < 4; ++i) streams.push_back(stream_through(world.store.get(), "k" + std::to_string(i), 64 * kMiB));
  for (const int wrong : run_blocking(when_all(std::move(streams)))) EXPECT_EQ(wrong, 0);
  EXPECT_LT(peak_kib() - before, 80U * 1024) << "256 MiB went through in 4 streams, with a budget of 48 MiB";
  EXPECT_EQ(world.runtime.budget()->used(), 0U);
}

TEST_P(Servers, AKeyOfSomebodyElseIsRefused) {
  World world(GetParam()());
  Options wrong = world.options;
  wrong.secret_access_key = config::Secret("not-the-secret");
  auto put = put_into(wrong, world.bucket);
  ASSERT_FALSE(put);
  EXPECT_EQ(put.error().reason, "BACKEND_AUTHENTICATION_FAILED");
  EXPECT_THAT(put.error().describe(), Not(HasSubstr("not-the-secret")));
  EXPECT_EQ(check(wrong).error().reason, "BACKEND_AUTHENTICATION_FAILED");
  wrong.access_key_id = "nobody";
  put = put_into(wrong, world.bucket, 7 * kMiB);
  ASSERT_FALSE(put);
  EXPECT_EQ(put.error().reason, "BACKEND_AUTHENTICATION_FAILED");
  EXPECT_TRUE(check(world.options));
}

TEST_P(Servers, ABucketThatIsMissingIsSaidOrMade) {
  World world(GetParam()());
  Options options = world.options;
  options.create_bucket = false;
  const std::string name = world.bucket + "-new";
  const auto put = put_into(options, name);
  ASSERT_FALSE(put);
  EXPECT_EQ(put.error().reason, "BUCKET_MISSING");
  EXPECT_THAT(put.error().hint, HasSubstr("create_bucket"));
  EXPECT_EQ(run_blocking(world.client()->check({}, name + "x")).has_value(), true);  // it may make them
  options.create_bucket = true;
  EXPECT_TRUE(put_into(options, name));
  ObjectStore store(world.client(), name, world.runtime.budget());
  EXPECT_TRUE(run_blocking(store.remove({}, {"k"})).front());
  for (const char* end : {"", "x"})
    static_cast<void>(run_blocking(world.client()->call({}, Call{.method = "DELETE", .bucket = name + end})));
}

INSTANTIATE_TEST_SUITE_P(Versity, Servers, testing::Values(versity));
INSTANTIATE_TEST_SUITE_P(Minio, Servers, testing::Values(minio));

// MinIO lists the uploads of one key only, and removes old ones by itself.
TEST(Versity, RemovesUploadsThatWereLeftBehind) {
  World world(versity());
  for (const char* key : {"p/a", "p/b", "q"}) {
    must(run_blocking(world.client()->call(
        {}, Call{.method = "POST", .bucket = world.bucket, .key = key, .query = {{"uploads", ""}}})));
  }
  EXPECT_EQ(run_blocking(world.store->abort_uploads({}, "", wall_now() - 1h)), 0U);
  EXPECT_EQ(run_blocking(world.store->abort_uploads({}, "p/", wall_now() + 1h)), 2U);
  EXPECT_EQ(run_blocking(world.store->abort_uploads({}, "", wall_now() + 1h)), 1U);
}

TEST(Versity, AUserWithoutRightsIsTold) {
  World world(versity());
  Options limited = world.options;
  limited.access_key_id = variable("PRISM_TEST_S3_LIMITED_ACCESS_KEY");
  limited.secret_access_key = config::Secret(variable("PRISM_TEST_S3_LIMITED_SECRET_KEY"));
  const auto put = put_into(limited, world.bucket);
  ASSERT_FALSE(put);
  EXPECT_EQ(put.error().reason, "BACKEND_PERMISSION_DENIED");
  EXPECT_TRUE(check(limited));  // the server answers
}

TEST(Versity, BucketsInTheHostsName) {
  Options options = versity();
  options.endpoint = variable("PRISM_TEST_S3_VIRTUAL_HOST");
  options.path_style = false;
  World world(options);
  const auto put = run_blocking(world.store->put({}, "a/b c", PatternSource::payload({.size = 9 * kMiB}), {}));
  ASSERT_TRUE(put) << put.error().describe();
  EXPECT_TRUE(run_blocking(world.store->head({}, "a/b c")));
  // It is the same bucket as in the path.
  Runtime runtime;
  const TestClient in_path(runtime, versity());
  ObjectStore store(in_path.client, world.bucket, runtime.budget());
  EXPECT_EQ(run_blocking(store.head({}, "a/b c"))->etag, put->etag);
}

TEST(Versity, SignsThePayloadWhereItIsAskedTo) {
  Options options = versity();
  options.sign_payload = true;
  World world(options);
  EXPECT_TRUE(run_blocking(world.store->put({}, "k", PatternSource::payload({.size = 9 * kMiB}), {})));
}

TEST(Versity, HasNoLifeCycle) {
  World world(versity());
  const auto rules = run_blocking(world.store->lifecycle({}));
  ASSERT_FALSE(rules);
  EXPECT_EQ(rules.error().reason, "STORAGE_UNSUPPORTED");
}

TEST(Minio, HasALifeCycle) {
  World world(minio());
  EXPECT_EQ(must(run_blocking(world.store->lifecycle({}))), std::vector<LifecycleRule>());
  const LifecycleRule one{.id = "one", .prefix = "claim-checks/", .expire_after_days = 7};
  const LifecycleRule two{.id = "two", .prefix = "x/", .expire_after_days = 1};
  must(run_blocking(world.store->set_lifecycle({}, one)));
  must(run_blocking(world.store->set_lifecycle({}, two)));
  EXPECT_THAT(must(run_blocking(world.store->lifecycle({}))), testing::UnorderedElementsAre(one, two));
  const LifecycleRule changed{.id = "one", .prefix = "claim-checks/", .expire_after_days = 9};
  must(run_blocking(world.store->set_lifecycle({}, changed)));
  EXPECT_THAT(must(run_blocking(world.store->lifecycle({}))), testing::UnorderedElementsAre(changed, two));
}

TEST(Encryption, IsTrustedByTheAuthoritiesGiven) {
  EXPECT_TRUE(check(secured("PRISM_TEST_CA"))) << check(secured("PRISM_TEST_CA")).error().describe();
  const auto untrusted = check(secured("PRISM_TEST_UNTRUSTED_CA"));
  ASSERT_FALSE(untrusted);
  EXPECT_EQ(untrusted.error().reason, "BACKEND_TLS_FAILED");
  EXPECT_EQ(untrusted.error().retry, Retry::never);
  Options none = secured("PRISM_TEST_CA");
  none.tls.reset();  // the system's authorities
  EXPECT_EQ(check(none).error().reason, "BACKEND_TLS_FAILED");
  Options any = none;
  any.tls = client::TlsOptions{.verify = false};
  EXPECT_TRUE(check(any));
  Options named = secured("PRISM_TEST_CA");
  named.tls->server_name = "localhost";
  EXPECT_TRUE(check(named)) << check(named).error().describe();
  named.tls->server_name = "another.example.com";
  EXPECT_EQ(check(named).error().reason, "BACKEND_TLS_FAILED");
}

TEST(Encryption, StreamsGoThroughIt) {
  World world(secured("PRISM_TEST_CA"));
  EXPECT_EQ(run_blocking(stream_through(world.store.get(), "k", 20 * kMiB)), 0);
}

}  // namespace
}  // namespace prism::s3
