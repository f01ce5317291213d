// What goes wrong between Prism and a server, with one that does it on purpose.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "backends/s3/checksum.h"
#include "backends/s3/fake_server_for_test.h"
#include "backends/s3/object_store.h"
#include "base/crc32c.h"
#include "runtime/scope.h"

namespace prism::s3 {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using Request = FakeServer::Request;
using Reply = FakeServer::Reply;

Reply error_reply(int status, const std::string& code) {
  return {.status = status, .headers = {}, .body = "<Error><Code>" + code + "</Code><Message>words</Message></Error>"};
}

Options options_for(const std::string& address) {
  Options out;
  out.endpoint = address;
  out.access_key_id = "id";
  out.secret_access_key = config::Secret("the-secret-key");
  out.retry.backoff = 1ms;
  out.retry.max_backoff = 5ms;
  out.timeouts.operation = 300ms;
  out.part_size = 5UL << 20;
  return out;
}

struct Rig {
  explicit Rig(FakeServer::Handler handler, const std::function<void(Options&)>& change = {})
      : server(std::move(handler)) {
    Options options = options_for(server.address());
    if (change) change(options);
    client = std::make_shared<Client>(runtime, std::move(options), "files");
    store = std::make_shared<ObjectStore>(client, "bucket", runtime.budget());
  }
  ~Rig() { run_blocking(client->close()); }
  std::size_t requests() const { return server.seen().size(); }

  FakeServer server;
  Runtime runtime;
  std::shared_ptr<Client> client;
  std::shared_ptr<ObjectStore> store;
};

Result<std::string> read(ObjectStore& store, const std::string& key) {
  PRISM_TRY(auto got, run_blocking(store.get({}, key, 0, std::nullopt)));
  PRISM_TRY(const Bytes all, run_blocking(got.second.collect({}, 1UL << 30)));
  return all.str();
}

std::string numbers(std::size_t size) {
  std::string out;
  while (out.size() < size) out += std::to_string(out.size()) + " ";
  out.resize(size);
  return out;
}

Payload text(std::string content) { return Payload(Bytes(std::move(content))); }

TEST(Faults, WhatMayBeRepeatedIs) {
  for (const auto& failure : {error_reply(503, "SlowDown"), error_reply(500, "InternalError"), error_reply(429, ""),
                              error_reply(503, "ServiceUnavailable"), Reply{.hang_up = true}}) {
    std::atomic<int> calls = 0;
    Rig rig([&](const Request&) {
      return ++calls < 3 ? failure : Reply{.headers = {{"etag", "\"e\""}}, .body = "content"};
    });
    EXPECT_EQ(read(*rig.store, "k"), "content");
    EXPECT_EQ(calls, 3);
    calls = 0;
    const auto put = run_blocking(rig.store->put({}, "k", text("x"), {}));
    EXPECT_TRUE(put) << put.error().describe();
    EXPECT_EQ(calls, 3);
  }
}

TEST(Faults, WhatGoesOnIsSaidAtLast) {
  Rig rig([](const Request&) { return error_reply(500, "InternalError"); });
  const auto head = run_blocking(rig.store->head({}, "k"));
  ASSERT_FALSE(head);
  EXPECT_EQ(head.error().reason, "BACKEND_UNAVAILABLE");
  EXPECT_EQ(head.error().retry, Retry::safe);
  EXPECT_EQ(rig.requests(), 3U);
  const auto put = run_blocking(rig.store->put({}, "k", text("x"), {}));
  ASSERT_FALSE(put);
  EXPECT_EQ(put.error().reason, "BACKEND_UNAVAILABLE");
  EXPECT_EQ(put.error().retry, Retry::unknown_outcome);
  EXPECT_THAT(put.error().message, HasSubstr("InternalError: words"));
}

TEST(Faults, CredentialsThatAreRefusedAreNotTriedAgainAndAgain) {
  for (const char* code : {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}) {
    Rig rig([&](const Request&) { return error_reply(403, code); });
    for (int i = 0; i < 20; ++i) {
      const auto put = run_blocking(rig.store->put({}, "k", text("x"), {}));
      ASSERT_FALSE(put);
      EXPECT_EQ(put.error().reason, "BACKEND_AUTHENTICATION_FAILED");
      EXPECT_THAT(put.error().describe(), Not(HasSubstr("the-secret-key")));
    }
    EXPECT_EQ(rig.requests(), 1U) << code;
  }
}

TEST(Faults, ARefusalBeforeTheBodyIsTheError) {
  FakeServer server([](const Request&) { return Reply(); },
                    [](const Request&) { return error_reply(403, "AccessDenied"); });
  Runtime runtime;
  const auto client = std::make_shared<Client>(runtime, options_for(server.address()), "files");
  ObjectStore store(client, "bucket", runtime.budget());
  const auto put = run_blocking(store.put({}, "k", text(numbers(4UL << 20)), {}));
  ASSERT_FALSE(put);
  EXPECT_EQ(put.error().reason, "BACKEND_PERMISSION_DENIED");
  run_blocking(client->close());
}

TEST(Faults, ARefusalThatIsLostWithTheConnectionIsFoundOut) {
  Rig rig([](const Request& request) {
    return request.method == "PUT" ? Reply{.hang_up = true} : error_reply(403, "SignatureDoesNotMatch");
  });
  const auto put = run_blocking(rig.store->put({}, "k", text("x"), {}));
  ASSERT_FALSE(put);
  EXPECT_EQ(put.error().reason, "BACKEND_AUTHENTICATION_FAILED");
}

TEST(Faults, AClockThatIsWrongIsSaid) {
  Rig rig([](const Request&) { return error_reply(403, "RequestTimeTooSkewed"); });
  const auto put = run_blocking(rig.store->put({}, "k", text("x"), {}));
  ASSERT_FALSE(put);
  EXPECT_EQ(put.error().reason, "BACKEND_CLOCK_SKEW");
  EXPECT_EQ(rig.requests(), 1U);
}

TEST(Faults, APutWhoseAnswerIsLostKnowsItself) {
  std::mutex mutex;
  std::string stored;  // the name of the put that the server has; guarded by mutex
  Rig rig([&](const Request& request) -> Reply {
    const std::lock_guard lock(mutex);
    if (request.method == "HEAD") {
      return {.headers = {{"etag", "\"e\""}, {"content-length", "1"}, {"x-amz-meta-prism-put", stored}}};
    }
    if (!stored.empty()) return error_reply(412, "PreconditionFailed");
    stored = request.headers.at("x-amz-meta-prism-put");
    return {.hang_up = true};
  });
  const auto mine = run_blocking(rig.store->put({}, "k", text("x"), {.if_absent = true}));
  ASSERT_TRUE(mine) << mine.error().describe();
  EXPECT_EQ(mine->etag, "e");
  const auto another = run_blocking(rig.store->put({}, "k", text("x"), {.if_absent = true}));
  ASSERT_FALSE(another);
  EXPECT_EQ(another.error().reason, "OBJECT_EXISTS");
}

std::string ranged(const std::string& content, const Request& request, Reply& reply) {
  const auto range = request.headers.find("range");
  if (range == request.headers.end()) return content;
  const std::size_t from = std::stoul(range->second.substr(6));
  reply.status = 206;
  reply.headers["content-range"] =
      "bytes " + std::to_string(from) + "-" + std::to_string(content.size() - 1) + "/" + std::to_string(content.size());
  return content.substr(from);
}

TEST(Faults, ADownloadThatBreaksOffGoesOn) {
  const std::string content = numbers(3'000'000);
  std::atomic<int> calls = 0;
  Rig rig([&](const Request& request) {
    Reply reply{.headers = {{"etag", "\"e\""}, {"x-amz-meta-prism-crc32c", crc_text(crc32c(0, content))}}};
    reply.body = ranged(content, request, reply);
    if (++calls <= 5) reply.cut_after = 500'000;
    return reply;
  });
  EXPECT_TRUE(read(*rig.store, "k") == content);
  EXPECT_EQ(calls, 6);
  for (const Request& request : rig.server.seen()) {
    if (request.headers.contains("range")) EXPECT_EQ(request.headers.at("if-match"), "\"e\"");
  }
}

TEST(Faults, ADownloadThatGetsNowhereEnds) {
  std::atomic<int> calls = 0;
  Rig rig([&](const Request& request) {
    Reply reply{.headers = {{"etag", "\"e\""}}};
    reply.body = ranged(numbers(1'000'000), request, reply);
    reply.cut_after = ++calls == 1 ? 10 : 0;
    return reply;
  });
  const auto got = read(*rig.store, "k");
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().reason, "BACKEND_UNAVAILABLE");
  EXPECT_LE(calls, 10);
}

TEST(Faults, AnObjectReplacedWhileItIsReadIsNoMixture) {
  Rig rig([](const Request& request) -> Reply {
    if (request.headers.contains("range")) return error_reply(412, "PreconditionFailed");
    return {.headers = {{"etag", "\"e\""}}, .body = numbers(1'000'000), .cut_after = 400'000};
  });
  const auto got = read(*rig.store, "k");
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().reason, "OBJECT_CHANGED");
}

TEST(Faults, DamageIsFoundAndItsEndNeverGivenOut) {
  const std::string content = numbers(1'000'000);
  for (const bool by_server : {true, false}) {
    Rig rig([&](const Request&) {
      Reply reply{.headers = {{"etag", "\"e\""}}, .body = content};
      if (by_server) {
        reply.headers["x-amz-checksum-crc32c"] = checksum_text(crc32c(0, content));
      } else {
        reply.headers["x-amz-meta-prism-crc32c"] = crc_text(crc32c(0, content));
      }
      reply.body[999'999] ^= 1;
      return reply;
    });
    auto got = run_blocking(rig.store->get({}, "k", 0, std::nullopt));
    ASSERT_TRUE(got);
    EXPECT_EQ(got->first.crc32c, crc32c(0, content));
    std::size_t seen = 0;
    while (true) {
      const auto piece = run_blocking(got->second.next({}, 1000));
      if (!piece) {
        EXPECT_EQ(piece.error().reason, "OBJECT_DAMAGED");
        EXPECT_EQ(piece.error().code, Code::data_loss);
        break;
      }
      ASSERT_FALSE(piece->empty());
      seen += piece->size();
    }
    EXPECT_LT(seen, content.size());
  }
}

TEST(Faults, AServerThatIsSilentIsNotWaitedForForEver) {
  Rig rig([](const Request&) { return Reply{.silent = true}; }, [](Options& o) { o.retry.attempts = 1; });
  const auto head = run_blocking(rig.store->head({}, "k"));
  ASSERT_FALSE(head);
  EXPECT_EQ(head.error().reason, "BACKEND_TIMEOUT");
  EXPECT_EQ(head.error().retry, Retry::safe);
  const auto put = run_blocking(rig.store->put({}, "k", text("x"), {}));
  ASSERT_FALSE(put);
  EXPECT_EQ(put.error().reason, "BACKEND_TIMEOUT");
  EXPECT_EQ(put.error().retry, Retry::unknown_outcome);
}

TEST(Faults, AWaiterIsLetGoAtOnce) {
  Rig rig([](const Request&) { return Reply{.silent = true}; }, [](Options& o) { o.timeouts.operation = 1h; });
  const auto late = run_blocking(rig.store->head(Context().with_timeout(50ms), "k"));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().reason, "DEADLINE_EXCEEDED");
  std::stop_source stop;
  std::jthread stopper([&] {
    while (rig.requests() < 2) std::this_thread::yield();
    stop.request_stop();
  });
  const auto stopped = run_blocking(
      rig.client->call(Context().with_stop(stop.get_token()), Call{.method = "PUT", .bucket = "bucket", .key = "k"}));
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().reason, "CANCELLED");
  EXPECT_EQ(stopped.error().retry, Retry::unknown_outcome);
}

TEST(Faults, AServerThatIsAwayIsLeftAloneAndFoundAgain) {
  std::string address;
  {
    FakeServer gone([](const Request&) { return Reply(); });
    address = gone.address();
  }
  Runtime runtime;
  Options options = options_for(address);
  options.breaker = {.failures = 2, .pause = 50ms, .max_pause = 100ms};
  const auto client = std::make_shared<Client>(runtime, options, "files");
  const auto away = run_blocking(client->check({}, "bucket"));
  ASSERT_FALSE(away);
  EXPECT_EQ(away.error().reason, "BACKEND_UNAVAILABLE");
  EXPECT_EQ(away.error().code, Code::unavailable);
  EXPECT_EQ(away.error().retry, Retry::safe);
  EXPECT_THAT(away.error().message, HasSubstr("\"files\""));
  // It is asked now and then, and not by every operation.
  const auto refused = run_blocking(client->check({}, "bucket"));
  ASSERT_FALSE(refused);
  EXPECT_GT(refused.error().retry_after, 0ms);
  run_blocking(client->close());
}

TEST(Faults, TheBreakerClosesWhenTheServerIsBack) {
  std::atomic<bool> well = false;
  Rig rig([&](const Request&) { return well ? Reply() : error_reply(500, "InternalError"); },
          [](Options& o) { o.breaker = {.failures = 1, .pause = 20ms, .max_pause = 40ms}; });
  EXPECT_FALSE(run_blocking(rig.client->check({}, "bucket")));
  well = true;
  const auto end = Clock::now() + 30s;
  while (!run_blocking(rig.client->check({}, "bucket")) && Clock::now() < end) {
  }
  EXPECT_TRUE(run_blocking(rig.client->check({}, "bucket")));
}

// The server keeps what it is told of one upload.
struct Parts {
  std::mutex mutex;
  std::map<int, std::string> parts;
  std::string created, completed;
  std::map<std::string, std::string> complete_headers;
  int aborted = 0;

  Reply answer(const Request& request) {
    const std::lock_guard lock(mutex);
    const std::string& target = request.target;
    if (request.method == "POST" && target.ends_with("?uploads=")) {
      created = request.headers.contains("x-amz-checksum-type") ? request.headers.at("x-amz-checksum-type") : "none";
      return {.body = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"};
    }
    if (request.method == "PUT") {
      const int number = std::stoi(target.substr(target.find("partNumber=") + 11));
      parts[number] = request.body;
      return {.headers = {{"etag", "\"p" + std::to_string(number) + "\""}}};
    }
    if (request.method == "POST") {
      completed = request.body;
      complete_headers = request.headers;
      return {.body = "<CompleteMultipartUploadResult><ETag>\"whole-2\"</ETag></CompleteMultipartUploadResult>"};
    }
    if (request.method == "DELETE") ++aborted;
    return {.status = request.method == "DELETE" ? 204 : 200};
  }
};

TEST(Uploads, GoInPartsWithTheChecksumOfTheWhole) {
  Parts state;
  std::atomic<int> failures = 2;
  Rig rig([&](const Request& request) {
    if (request.method == "PUT" && failures-- > 0) return error_reply(503, "SlowDown");
    return state.answer(request);
  });
  const std::string content = numbers(12UL << 20);
  const auto put = run_blocking(rig.store->put({}, "k", text(content), {.if_absent = true}));
  ASSERT_TRUE(put) << put.error().describe();
  EXPECT_EQ(put->etag, "whole-2");
  EXPECT_EQ(put->crc32c, crc32c(0, content));
  EXPECT_EQ(state.created, "FULL_OBJECT");
  ASSERT_EQ(state.parts.size(), 3U);
  EXPECT_TRUE(state.parts[1] + state.parts[2] + state.parts[3] == content);
  EXPECT_EQ(state.complete_headers.at("x-amz-checksum-crc32c"), checksum_text(crc32c(0, content)));
  EXPECT_EQ(state.complete_headers.at("if-none-match"), "*");
  EXPECT_THAT(state.completed, HasSubstr("<ETag>\"p3\"</ETag><PartNumber>3</PartNumber>"));
  EXPECT_EQ(state.aborted, 0);
}

TEST(Uploads, WorkWhereTheServerKnowsNoChecksums) {
  Parts state;
  Rig rig([&](const Request& request) {
    if (request.headers.contains("x-amz-checksum-algorithm") || request.headers.contains("x-amz-checksum-crc32c"))
      return error_reply(501, "NotImplemented");
    return state.answer(request);
  });
  for (int i = 0; i < 2; ++i) {
    const auto put = run_blocking(rig.store->put({}, "k", text(numbers(6UL << 20)), {}));
    ASSERT_TRUE(put) << put.error().describe();
    EXPECT_EQ(state.created, "none");
    EXPECT_FALSE(state.complete_headers.contains("x-amz-checksum-crc32c"));
  }
}

TEST(Uploads, OfOneRequestWorkThereToo) {
  Rig rig([&](const Request& request) {
    if (request.headers.contains("x-amz-checksum-crc32c")) return error_reply(501, "NotImplemented");
    return Reply{.headers = {{"etag", "\"e\""}}};
  });
  EXPECT_TRUE(run_blocking(rig.store->put({}, "k", text("x"), {})));
  EXPECT_TRUE(run_blocking(rig.store->put({}, "k", text("x"), {})));
  EXPECT_EQ(rig.requests(), 3U);
  EXPECT_EQ(rig.server.seen()[2].headers.at("x-amz-meta-prism-crc32c"), crc_text(crc32c(0, "x")));
}

TEST(Uploads, AreRemovedWhenAPartFails) {
  Parts state;
  Rig rig([&](const Request& request) {
    if (request.target.find("partNumber=2") != std::string::npos) return error_reply(403, "AccessDenied");
    return state.answer(request);
  });
  const auto put = run_blocking(rig.store->put({}, "k", text(numbers(20UL << 20)), {}));
  ASSERT_FALSE(put);
  EXPECT_EQ(put.error().reason, "BACKEND_PERMISSION_DENIED");
  EXPECT_EQ(state.aborted, 1);
  EXPECT_TRUE(state.completed.empty());
  EXPECT_EQ(rig.runtime.budget()->used(), 0U);
}

TEST(Uploads, AnErrorAfterTheHeadOfTheAnswerIsOne) {
  Parts state;
  Rig rig([&](const Request& request) -> Reply {
    if (request.method == "POST" && request.target.find("uploadId=") != std::string::npos) {
      return {.status = 200,
              .body = "  <?xml version=\"1.0\"?><Error><Code>InvalidPart</Code><Message>m</Message></Error>"};
    }
    return state.answer(request);
  });
  const auto put = run_blocking(rig.store->put({}, "k", text(numbers(6UL << 20)), {}));
  ASSERT_FALSE(put);
  EXPECT_EQ(put.error().reason, "STORAGE_ERROR");
  EXPECT_EQ(state.aborted, 1);
}

TEST(Pool, NoMoreConnectionsThanAllowed) {
  std::atomic<int> now = 0;
  std::atomic<int> most = 0;
  Rig rig(
      [&](const Request&) {
        const int n = ++now;
        int seen = most;
        while (n > seen && !most.compare_exchange_weak(seen, n)) {
        }
        std::this_thread::sleep_for(2ms);
        --now;
        return Reply();
      },
      [](Options& o) { o.pool = {.connections = 3, .queue = 100, .wait = 60s}; });
  std::vector<Task<Result<ObjectInfo>>> heads;
  for (int i = 0; i < 40; ++i) heads.push_back(rig.store->head({}, "k"));
  for (const auto& head : run_blocking(when_all(std::move(heads)))) EXPECT_TRUE(head);
  EXPECT_LE(most, 3);
  EXPECT_LE(rig.client->use().in_use + rig.client->use().idle, 3U);
}

TEST(Pool, TooManyWhoWaitAreRefused) {
  Rig rig([](const Request&) { return Reply{.silent = true}; },
          [](Options& o) {
            o.pool = {.connections = 1, .queue = 2, .wait = 50ms};
            o.retry.attempts = 1;
          });
  std::vector<Task<Result<ObjectInfo>>> heads;
  for (int i = 0; i < 6; ++i) heads.push_back(rig.store->head({}, "k"));
  int overloaded = 0;
  for (const auto& head : run_blocking(when_all(std::move(heads)))) {
    ASSERT_FALSE(head);
    if (head.error().reason == "BACKEND_OVERLOADED") ++overloaded;
  }
  EXPECT_EQ(overloaded, 5);  // three at once, two after their wait
}

TEST(Reading, IsHeldBackByWhoReads) {
  constexpr std::size_t kSize = 64UL << 20;
  Rig rig([&](const Request&) { return Reply{.headers = {{"etag", "\"e\""}}, .body = std::string(kSize, 'x')}; },
          [](Options& o) { o.timeouts.operation = 1s; });
  auto got = run_blocking(rig.store->get({}, "k", 0, std::nullopt));
  ASSERT_TRUE(got);
  // Nobody reads for longer than the server may be silent: that is no fault of it.
  std::this_thread::sleep_for(1200ms);
  std::size_t seen = 0;
  while (true) {
    const auto piece = run_blocking(got->second.next({}, 1UL << 20));
    ASSERT_TRUE(piece) << piece.error().describe();
    if (piece->empty()) break;
    ASSERT_LE(piece->size(), 1UL << 20);
    seen += piece->size();
  }
  EXPECT_EQ(seen, kSize);
  EXPECT_EQ(rig.requests(), 1U);
}

TEST(Removing, ManyAtOnceAndEachWithItsOwnAnswer) {
  Rig rig([](const Request& request) -> Reply {
    if (request.method == "POST") {
      return {.body =
                  "<DeleteResult><Error><Key>k2</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
                  "<Error><Key>k3</Key><Code>NoSuchKey</Code></Error></DeleteResult>"};
    }
    return {.status = 204};
  });
  Batch<std::string> keys;
  for (int i = 0; i < 1500; ++i) keys.push_back("k" + std::to_string(i));
  keys.push_back("line\nbreak");
  const auto removed = run_blocking(rig.store->remove({}, keys));
  ASSERT_EQ(removed.size(), keys.size());
  for (std::size_t i = 0; i < removed.size(); ++i) EXPECT_EQ(removed[i].has_value(), i != 2) << i;
  EXPECT_EQ(removed[2].error().reason, "BACKEND_PERMISSION_DENIED");
  const auto seen = rig.server.seen();
  ASSERT_EQ(seen.size(), 3U);
  EXPECT_EQ(seen[0].target, "/bucket/line%0Abreak");
  EXPECT_EQ(seen[1].headers.at("content-md5"), md5_base64(seen[1].body));
}

TEST(Lifecycle, HasARuleForUploadsWhereThatIsAskedFor) {
  std::mutex mutex;
  std::string document;  // guarded by mutex
  Rig rig(
      [&](const Request& request) -> Reply {
        const std::lock_guard lock(mutex);
        if (request.target.find("lifecycle") == std::string::npos) return {};
        if (request.method == "PUT") document = request.body;
        if (document.empty()) return error_reply(404, "NoSuchLifecycleConfiguration");
        return {.body = document};
      },
      [](Options& o) { o.abort_uploads_after = 3; });
  EXPECT_TRUE(run_blocking(rig.store->check({})));
  const LifecycleRule rule{.id = "prism-unfinished-uploads", .prefix = {}, .abort_uploads_after_days = 3};
  EXPECT_EQ(run_blocking(rig.store->lifecycle({})), std::vector<LifecycleRule>{rule});
  const std::size_t before = rig.requests();
  EXPECT_TRUE(run_blocking(rig.store->check({})));
  EXPECT_EQ(rig.requests(), before + 1);  // once is enough
}

TEST(Lifecycle, IsDoneWithoutWhereTheServerHasNone) {
  Rig rig(
      [](const Request& request) {
        return request.target.find("lifecycle") == std::string::npos ? Reply() : error_reply(501, "NotImplemented");
      },
      [](Options& o) { o.abort_uploads_after = 3; });
  EXPECT_TRUE(run_blocking(rig.store->check({})));
}

}  // namespace
}  // namespace prism::s3
