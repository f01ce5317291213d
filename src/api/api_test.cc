#include <gmock/gmock.h>
#include <google/protobuf/any.pb.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <latch>
#include <random>
#include <thread>

#include "api/errors.h"
#include "api/fakes_for_test.h"
#include "api/messages.h"
#include "api/messaging.h"
#include "api/methods.h"
#include "api/server.h"
#include "base/crc32c.h"
#include "prism/common/v1/rpc_status.pb.h"
#include "prism/keyvalue/v1/keyvalue.grpc.pb.h"
#include "prism/pubsub/v1/pubsub.grpc.pb.h"
#include "prism/queue/v1/queue.grpc.pb.h"
#include "prism/session/v1/session.grpc.pb.h"

namespace prism::api {
namespace {

using common::v1::ErrorInfo;
using pubsub::v1::Event;
using pubsub::v1::PublishPayloadRequest;
using pubsub::v1::PublishRequest;
using pubsub::v1::PublishResponse;
using pubsub::v1::PubSubService;
using pubsub::v1::SubscribeRequest;
using pubsub::v1::SubscribeStreamRequest;
using pubsub::v1::SubscribeStreamResponse;

ErrorInfo info_of(const grpc::Status& status) {
  common::v1::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), static_cast<int>(status.error_code()));
  ErrorInfo info;
  for (const auto& any : details.details()) {
    if (any.type_url() == "type.googleapis.com/google.rpc.ErrorInfo") EXPECT_TRUE(info.ParseFromString(any.value()));
  }
  EXPECT_EQ(info.domain(), "prism");
  return info;
}
std::string reason_of(const grpc::Status& status) { return status.ok() ? "OK" : info_of(status).reason(); }

// Waits for a condition that other threads bring about.
template <class F>
void eventually(F condition) {
  const auto until = Clock::now() + std::chrono::seconds(20);
  while (!condition() && Clock::now() < until) std::this_thread::yield();
  EXPECT_TRUE(condition());
}

class ApiTest : public ::testing::Test {
 protected:
  ApiTest() : log(runtime.next_loop()), router(log) {
    auto started = Server::start({.address = "127.0.0.1:0", .drain_grace = std::chrono::seconds(20)}, router, sessions,
                                 metrics, runtime);
    EXPECT_TRUE(started) << started.error().describe();
    server = std::move(*started);
    channel = connect();
    pubsub = PubSubService::NewStub(channel);
    queue = queue::v1::QueueService::NewStub(channel);
  }
  ~ApiTest() override {
    server->shutdown(std::chrono::seconds(0));
    EXPECT_EQ(server->calls_running(), 0U);
    EXPECT_EQ(metrics.in_flight, 0);
    EXPECT_EQ(log.open_subscriptions(), 0U);
  }
  std::shared_ptr<grpc::Channel> connect() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxReceiveMessageSize(-1);
    return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(server->port()), grpc::InsecureChannelCredentials(),
                                     arguments);
  }
  grpc::Status publish(const PublishRequest& request, PublishResponse* response = nullptr, std::string ns = {}) {
    grpc::ClientContext context;
    if (!ns.empty()) context.AddMetadata("prism-namespace", ns);
    PublishResponse unused;
    return pubsub->Publish(&context, request, response != nullptr ? response : &unused);
  }
  static PublishRequest message(std::string payload, std::string topic = "orders") {
    PublishRequest request;
    request.set_topic(std::move(topic));
    request.set_payload(std::move(payload));
    return request;
  }

  Runtime runtime;
  testing::FakeLog log;
  testing::FakeRouter router;
  testing::FakeMetrics metrics;
  Sessions sessions;
  std::unique_ptr<Server> server;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<PubSubService::Stub> pubsub;
  std::unique_ptr<queue::v1::QueueService::Stub> queue;
};

// proves, S-10
TEST_F(ApiTest, PublishesAndDelivers) {
  PublishRequest request = message("hello");
  (*request.mutable_metadata())["a"] = "1";
  (*request.mutable_metadata())["content-type"] = "mine";
  request.set_content_type("text/plain");
  request.set_ordering_key("k");
  PublishResponse response;
  ASSERT_TRUE(publish(request, &response).ok());
  EXPECT_TRUE(response.success());
  EXPECT_EQ(response.id().size(), 36U);
  EXPECT_EQ(response.topic(), "orders");
  EXPECT_EQ(response.durability(), common::v1::DURABILITY_FSYNC);
  EXPECT_TRUE(parse_position(response.position()));

  grpc::ClientContext context;
  SubscribeRequest subscribe;
  subscribe.set_topic("orders");
  auto stream = pubsub->Subscribe(&context, subscribe);
  Event event;
  ASSERT_TRUE(stream->Read(&event));
  EXPECT_EQ(event.id(), response.id());
  EXPECT_EQ(event.payload(), "hello");
  EXPECT_EQ(event.topic(), "orders");
  EXPECT_EQ(event.ordering_key(), "k");
  EXPECT_EQ(event.content_type(), "text/plain");
  EXPECT_EQ(event.metadata().size(), 2U);
  EXPECT_EQ(event.metadata().at("a"), "1");
  EXPECT_EQ(event.metadata().at("content-type"), "mine");
  EXPECT_EQ(event.position(), response.position());
  EXPECT_EQ(event.attempt(), 1U);
  EXPECT_TRUE(event.ack_token().empty());
  EXPECT_GT(event.publish_time().seconds(), 0);
  eventually([&] { return log.acked() == 1; });
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

// proves: A-03
TEST_F(ApiTest, QueueServesTheSame) {
  for (const char* ns : {"jobs", "orders"}) {
    grpc::ClientContext context;
    PublishResponse response;
    ASSERT_TRUE(queue->Publish(&context, message("x", ns), &response).ok());
    grpc::ClientContext reading;
    SubscribeRequest subscribe;
    subscribe.set_topic(ns);
    subscribe.set_group(ns);
    auto stream = queue->Subscribe(&reading, subscribe);
    queue::v1::Message received;
    ASSERT_TRUE(stream->Read(&received));
    EXPECT_EQ(received.payload(), "x");
    reading.TryCancel();
    (void)stream->Finish();
  }
}

TEST_F(ApiTest, RefusesBadRequests) {
  EXPECT_EQ(reason_of(publish(message("x", "nowhere"))), "NAMESPACE_NOT_FOUND");
  EXPECT_EQ(reason_of(publish(message("x", "topic"), nullptr, "nowhere")), "NAMESPACE_NOT_FOUND");
  EXPECT_EQ(reason_of(publish(message("x", "ambiguous"))), "TOPIC_AMBIGUOUS");
  EXPECT_EQ(reason_of(publish(message("x", "jobs"))), "WRONG_API");
  const auto wrong = publish(message("x", "users"));
  EXPECT_EQ(wrong.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(info_of(wrong).metadata().at("hint"), ::testing::HasSubstr("KeyValueService"));
  EXPECT_EQ(info_of(wrong).metadata().at("retry"), "never");
  EXPECT_EQ(reason_of(publish(message(std::string(kMaxUnaryBytes + 1, 'x')))), "PAYLOAD_TOO_LARGE_FOR_UNARY");
  EXPECT_TRUE(publish(message(std::string(kMaxUnaryBytes, 'x'))).ok());
  EXPECT_EQ(publish(message(std::string(20UL << 20, 'x'))).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);  // gRPC's own

  const auto with = [&](auto change) {
    PublishRequest request = message("x");
    change(request);
    return reason_of(publish(request));
  };
  EXPECT_EQ(with([](auto& r) { (*r.mutable_metadata())["Prism-id"] = ""; }), "METADATA_RESERVED");
  EXPECT_EQ(with([](auto& r) { (*r.mutable_metadata())[""] = "x"; }), "METADATA_INVALID");
  EXPECT_EQ(with([](auto& r) { (*r.mutable_metadata())["a"] = std::string(65'536, 'x'); }), "METADATA_TOO_LARGE");
  EXPECT_EQ(with([](auto& r) { r.set_message_id("a b"); }), "MESSAGE_ID_INVALID");
  EXPECT_EQ(with([](auto& r) { r.set_message_id(std::string(129, 'a')); }), "MESSAGE_ID_INVALID");
  EXPECT_EQ(with([](auto& r) { r.set_ordering_key(std::string(1025, 'a')); }), "ORDERING_KEY_TOO_LONG");
  EXPECT_EQ(with([](auto& r) { r.mutable_deliver_at()->set_seconds(1); }), "FIELD_NOT_AVAILABLE");
  EXPECT_EQ(with([](auto& r) { r.mutable_ttl()->set_seconds(1); }), "FIELD_NOT_AVAILABLE");
  EXPECT_EQ(log.count(), 1U);

  log.refuse = [](const std::string& /*id*/) {
    return Error{
        Code::resource_exhausted, "LOG_FULL", "the disk is full", "", Retry::safe, std::chrono::milliseconds(1500),
        {{"backend", "kafka"}}};
  };
  const auto full = publish(message("x"));
  EXPECT_EQ(full.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(info_of(full).metadata().at("backend"), "kafka");
  common::v1::Status details;
  ASSERT_TRUE(details.ParseFromString(full.error_details()));
  ASSERT_EQ(details.details_size(), 3);
  EXPECT_EQ(details.details(1).type_url(), "type.googleapis.com/google.rpc.RetryInfo");
  EXPECT_EQ(details.details(2).type_url(), "type.googleapis.com/google.rpc.QuotaFailure");
}

TEST_F(ApiTest, MethodsThatAreNotBuiltSaySo) {
  auto key_value = keyvalue::v1::KeyValueService::NewStub(channel);
  grpc::ClientContext context;
  keyvalue::v1::GetResponse got;
  const auto status = key_value->Get(&context, {}, &got);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(reason_of(status), "METHOD_NOT_AVAILABLE");
  EXPECT_THAT(status.error_message(), ::testing::HasSubstr("prism.keyvalue.v1.KeyValueService.Get"));
  grpc::ClientContext pulling;
  queue::v1::PullResponse pulled;
  EXPECT_EQ(reason_of(queue->Pull(&pulling, {}, &pulled)), "METHOD_NOT_AVAILABLE");
}

// Calls a method by its path with a request of these bytes, and ends the client's side.
std::pair<grpc::Status, std::string> call(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                                          const std::string& request = {}) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::Slice slice(request);
  grpc::ByteBuffer in(&slice, 1);
  grpc::ByteBuffer out;
  grpc::Status status;
  std::latch done(1);
  stub.UnaryCall(&context, method, {}, &in, &out, [&](grpc::Status s) {
    status = std::move(s);
    done.count_down();
  });
  done.wait();
  std::vector<grpc::Slice> slices;
  std::string answer;
  if (status.ok() && out.Dump(&slices).ok()) {
    for (const auto& s : slices) answer.append(reinterpret_cast<const char*>(s.begin()), s.size());
  }
  return {status, answer};
}

TEST_F(ApiTest, HealthAndUnknownMethods) {
  EXPECT_EQ(call(channel, "/grpc.health.v1.Health/Check").second, "\x08\x01");
  EXPECT_EQ(call(channel, "/grpc.health.v1.Health/Check", "\x0a\x04none").first.error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(call(channel, "/grpc.health.v1.Health/Check", "\x0a\x1dprism.pubsub.v1.PubSubService").second, "\x08\x01");
  EXPECT_EQ(reason_of(call(channel, "/no.such.Service/Method").first), "METHOD_UNKNOWN");
}

// What gRPC takes for the end of a stream (and answered UNIMPLEMENTED without a word where there is no stream) is an
// error of the client, with a reason.
// proves: F-09
TEST_F(ApiTest, BytesThatAreNoMessageAreRefused) {
  const std::string garbage = "\xff\xff\xff";
  const std::string not_utf8 = "\x0a\x02\xff\xfe";                         // field 1, a text
  const std::string nested_not_utf8 = std::string("\x0a\x04") + not_utf8;  // field 1, a message with such a text
  for (const std::string_view service : {kPubSubService, kQueueService}) {
    for (const char* method :
         {"Publish", "PublishBatch", "PublishStream", "PublishPayload", "Subscribe", "SubscribeStream"}) {
      const std::string path = "/" + std::string(service) + "/" + method;
      const bool nested = std::string_view(method) != "Publish" && std::string_view(method) != "Subscribe";
      for (const std::string& bytes : {garbage, nested ? nested_not_utf8 : not_utf8}) {
        const auto status = call(channel, path, bytes).first;
        EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << path;
        EXPECT_EQ(reason_of(status), "REQUEST_MALFORMED") << path;
      }
    }
  }
  EXPECT_EQ(reason_of(call(channel, "/prism.session.v1.SessionService/Open", not_utf8).first), "REQUEST_MALFORMED");
  EXPECT_EQ(log.count(), 0U);
}

// A later frame: what came before it has its results.
TEST_F(ApiTest, AMalformedFrameEndsItsStream) {
  using Raw = grpc::ByteBuffer;
  const auto encode = [](const google::protobuf::MessageLite& message) {
    grpc::Slice slice(message.SerializeAsString());
    return Raw(&slice, 1);
  };
  grpc::Slice garbage("\xff\xff\xff");
  const Raw bad(&garbage, 1);
  {
    const grpc::internal::RpcMethod method("/prism.pubsub.v1.PubSubService/PublishStream",
                                           grpc::internal::RpcMethod::BIDI_STREAMING);
    grpc::ClientContext context;
    const std::unique_ptr<grpc::ClientReaderWriter<Raw, Raw>> stream(
        grpc::internal::ClientReaderWriterFactory<Raw, Raw>::Create(channel.get(), method, &context));
    pubsub::v1::PublishStreamRequest frame;
    *frame.add_messages() = message("x");
    stream->Write(encode(frame));
    stream->Write(bad);
    Raw answer;
    EXPECT_TRUE(stream->Read(&answer));
    EXPECT_FALSE(stream->Read(&answer));
    EXPECT_EQ(reason_of(stream->Finish()), "REQUEST_MALFORMED");
    EXPECT_EQ(log.count(), 1U);
  }
  {
    const grpc::internal::RpcMethod method("/prism.pubsub.v1.PubSubService/PublishPayload",
                                           grpc::internal::RpcMethod::CLIENT_STREAMING);
    grpc::ClientContext context;
    PublishResponse response;
    const std::unique_ptr<grpc::ClientWriter<Raw>> stream(
        grpc::internal::ClientWriterFactory<Raw>::Create(channel.get(), method, &context, &response));
    PublishPayloadRequest frame;
    frame.mutable_header()->set_topic("orders");
    stream->Write(encode(frame));
    frame.set_chunk("x");
    stream->Write(encode(frame));
    stream->Write(bad);
    stream->WritesDone();
    EXPECT_EQ(reason_of(stream->Finish()), "REQUEST_MALFORMED");
    EXPECT_EQ(log.count(), 1U);
  }
  {
    const grpc::internal::RpcMethod method("/prism.pubsub.v1.PubSubService/SubscribeStream",
                                           grpc::internal::RpcMethod::BIDI_STREAMING);
    grpc::ClientContext context;
    const std::unique_ptr<grpc::ClientReaderWriter<Raw, Raw>> stream(
        grpc::internal::ClientReaderWriterFactory<Raw, Raw>::Create(channel.get(), method, &context));
    SubscribeStreamRequest frame;
    frame.mutable_open()->set_topic("orders");
    stream->Write(encode(frame));
    Raw answer;
    EXPECT_TRUE(stream->Read(&answer));
    stream->Write(bad);
    while (stream->Read(&answer)) {
    }
    EXPECT_EQ(reason_of(stream->Finish()), "REQUEST_MALFORMED");
  }
}

TEST_F(ApiTest, ASecondServerOnThePortIsRefused) {
  auto second =
      Server::start({.address = "127.0.0.1:" + std::to_string(server->port())}, router, sessions, metrics, runtime);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().reason, "ADDRESS_IN_USE");
  auto bad = Server::start({.address = "no-such-host.invalid:1"}, router, sessions, metrics, runtime);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().reason, "ADDRESS_INVALID");
}

// proves: S-10
TEST_F(ApiTest, SessionsBindANamespace) {
  auto stub = session::v1::SessionService::NewStub(channel);
  session::v1::OpenRequest open;
  session::v1::OpenResponse opened;
  open.set_namespace_("orders");
  open.set_client_name("test");
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub->Open(&context, open, &opened).ok());
  }
  EXPECT_EQ(opened.client_api(), "pubsub");
  EXPECT_EQ(opened.idle_timeout().seconds(), 1800);
  const auto publish_with = [&](const std::string& session, const std::string& ns, const std::string& topic) {
    grpc::ClientContext context;
    context.AddMetadata("prism-session", session);
    if (!ns.empty()) context.AddMetadata("prism-namespace", ns);
    PublishResponse response;
    const auto status = pubsub->Publish(&context, message("x", topic), &response);
    return status.ok() ? response.topic() : reason_of(status);
  };
  EXPECT_EQ(publish_with(opened.session_id(), "", "created"), "created");
  EXPECT_EQ(publish_with(opened.session_id(), "orders", ""), "orders");
  EXPECT_EQ(publish_with(opened.session_id(), "jobs", "x"), "NAMESPACE_MISMATCH");
  EXPECT_EQ(publish_with("deadbeef", "", "x"), "SESSION_NOT_FOUND");
  {
    grpc::ClientContext context;
    session::v1::DescribeRequest request;
    session::v1::DescribeResponse described;
    request.set_session_id(opened.session_id());
    ASSERT_TRUE(stub->Describe(&context, request, &described).ok());
    EXPECT_EQ(described.namespace_(), "orders");
    EXPECT_EQ(described.client_name(), "test");
    grpc::ClientContext refreshing;
    session::v1::RefreshRequest refresh;
    session::v1::RefreshResponse refreshed;
    refresh.set_session_id(opened.session_id());
    ASSERT_TRUE(stub->Refresh(&refreshing, refresh, &refreshed).ok());
    EXPECT_GT(refreshed.expires_at().seconds(), described.opened_at().seconds());
  }
  for (int i = 0; i < 2; ++i) {
    grpc::ClientContext context;
    session::v1::CloseRequest close;
    session::v1::CloseResponse closed;
    close.set_session_id(opened.session_id());
    EXPECT_TRUE(stub->Close(&context, close, &closed).ok());
  }
  EXPECT_EQ(publish_with(opened.session_id(), "", "x"), "SESSION_NOT_FOUND");
  open.set_namespace_("nowhere");
  grpc::ClientContext context;
  EXPECT_EQ(reason_of(stub->Open(&context, open, &opened)), "NAMESPACE_NOT_FOUND");
}

TEST(Sessions, EndWhenTheyAreIdleAndAreBounded) {
  Sessions bounded({.idle_timeout = std::chrono::hours(1), .limit = 2});
  auto a = bounded.open("", "", "");
  auto b = bounded.open("", "", "");
  EXPECT_EQ(bounded.open("", "", "").error().reason, "TOO_MANY_SESSIONS");
  Sessions brief({.idle_timeout = Clock::duration(0), .limit = 1});
  std::string id;
  {
    auto used = brief.open("", "", "");
    id = (*used)->id;
    EXPECT_TRUE(brief.use(id));  // a call under way keeps it alive
    EXPECT_EQ(brief.open("", "", "").error().reason, "TOO_MANY_SESSIONS");
  }
  EXPECT_EQ(brief.use(id).error().reason, "SESSION_NOT_FOUND");
  EXPECT_TRUE(brief.open("", "", ""));  // its place is free
  EXPECT_EQ(brief.count(), 1U);
}

TEST_F(ApiTest, BatchesHaveAResultForEachMessage) {
  log.refuse = [](const std::string& id) -> std::optional<Error> {
    if (id != "bad") return std::nullopt;
    return Error{Code::unavailable, "BACKEND_UNAVAILABLE", "no", "", Retry::unknown_outcome, {}, {}};
  };
  pubsub::v1::PublishBatchRequest request;
  const auto add = [&](std::string id, std::string topic, std::string key) {
    auto* m = request.add_messages();
    *m = message(id, std::move(topic));
    m->set_message_id(id);
    m->set_ordering_key(std::move(key));
  };
  add("1", "orders", "k");
  add("2", "nowhere", "");
  add("bad", "orders", "");
  add("sp ace", "orders", "k");
  add("5", "orders", "k");
  add("6", "orders", "other");
  grpc::ClientContext context;
  pubsub::v1::PublishBatchResponse response;
  ASSERT_TRUE(pubsub->PublishBatch(&context, request, &response).ok());
  std::vector<std::string> results;
  for (const auto& r : response.results()) results.push_back(r.has_response() ? r.response().id() : r.error().reason());
  EXPECT_EQ(results, (std::vector<std::string>{"1", "NAMESPACE_NOT_FOUND", "BACKEND_UNAVAILABLE", "MESSAGE_ID_INVALID",
                                               "EARLIER_MESSAGE_FAILED", "6"}));
  EXPECT_EQ(response.results(2).error().retry(), "unknown_outcome");
  EXPECT_EQ(log.publishes(), 1U);

  grpc::ClientContext empty;
  EXPECT_EQ(reason_of(pubsub->PublishBatch(&empty, {}, &response)), "EMPTY_BATCH");
  for (int i = 0; i < 10'000; ++i) request.add_messages();
  grpc::ClientContext large;
  EXPECT_EQ(reason_of(pubsub->PublishBatch(&large, request, &response)), "BATCH_TOO_LARGE");
}

TEST_F(ApiTest, CallsCountForTheirNamespaceWithTheReasonOfTheirFailure) {
  PublishRequest reserved = message("x");
  (*reserved.mutable_metadata())["prism-x"] = "y";
  EXPECT_TRUE(publish(message("x")).ok());
  EXPECT_EQ(reason_of(publish(reserved)), "METADATA_RESERVED");
  EXPECT_EQ(reason_of(publish(message("x", "nowhere"))), "NAMESPACE_NOT_FOUND");
  pubsub::v1::PublishBatchRequest request;
  *request.add_messages() = message("x");
  *request.add_messages() = reserved;
  pubsub::v1::PublishBatchResponse response;
  grpc::ClientContext context;
  EXPECT_TRUE(pubsub->PublishBatch(&context, request, &response).ok());

  const std::lock_guard lock(metrics.mutex);
  EXPECT_EQ((metrics.calls[{"Publish", 0}]), 1);
  EXPECT_EQ((metrics.calls[{"PublishBatch", 0}]), 1);
  EXPECT_EQ(metrics.reasons, (std::map<std::string, int>{{"METADATA_RESERVED", 1}, {"NAMESPACE_NOT_FOUND", 1}}));
  EXPECT_EQ(metrics.refusals, (std::map<std::string, int>{{"METADATA_RESERVED", 1}}));
  EXPECT_EQ(metrics.namespaces.count(""), 1U) << "a call about no namespace";
  EXPECT_EQ(metrics.namespaces.size(), 2U);
  EXPECT_EQ(metrics.published_messages, 2U);
}

TEST_F(ApiTest, StreamsOfMessagesKeepTheirOrder) {
  log.on_loop = true;
  constexpr int kFrames = 200;
  constexpr int kPerFrame = 100;
  grpc::ClientContext context;
  auto stream = pubsub->PublishStream(&context);
  std::jthread writer([&] {
    for (int f = 0; f < kFrames; ++f) {
      pubsub::v1::PublishStreamRequest frame;
      for (int i = 0; i < kPerFrame; ++i) {
        auto* m = frame.add_messages();
        *m = message("p" + std::to_string(f * kPerFrame + i));
        (*m->mutable_metadata())["n"] = std::to_string(f * kPerFrame + i);
      }
      ASSERT_TRUE(stream->Write(frame));
    }
    stream->WritesDone();
  });
  pubsub::v1::PublishStreamResponse response;
  std::uint64_t results = 0;
  while (stream->Read(&response)) {
    EXPECT_EQ(response.first_sequence(), results);
    for (const auto& r : response.results()) EXPECT_TRUE(r.has_response());
    results += static_cast<std::uint64_t>(response.results_size());
  }
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(results, static_cast<std::uint64_t>(kFrames * kPerFrame));
  const auto stored = log.stored();
  ASSERT_EQ(stored.size(), results);
  for (std::size_t i = 0; i < stored.size(); ++i) {
    EXPECT_EQ(stored[i].body, "p" + std::to_string(i));
    EXPECT_EQ(stored[i].headers.at(0).second, std::to_string(i));
  }
  EXPECT_LE(log.publishes(), static_cast<std::size_t>(kFrames));
  EXPECT_EQ(metrics.published_messages, results);
}

TEST_F(ApiTest, ABadFrameEndsTheStreamAfterTheResultsBeforeIt) {
  grpc::ClientContext context;
  auto stream = pubsub->PublishStream(&context);
  pubsub::v1::PublishStreamRequest frame;
  *frame.add_messages() = message("x");
  stream->Write(frame);
  stream->Write({});
  pubsub::v1::PublishStreamResponse response;
  EXPECT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.results_size(), 1);
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(reason_of(stream->Finish()), "EMPTY_BATCH");
}

class UploadTest : public ApiTest {
 protected:
  struct Plan {
    std::size_t chunks = 5;
    std::size_t chunk_bytes = 1 << 20;
    std::optional<std::uint64_t> declared;
    std::optional<std::uint64_t> trailer_size;
    std::uint32_t crc_error = 0;
    bool header = true;
    bool trailer = true;
    bool second_header = false;
    bool after_trailer = false;
    std::string topic = "orders";
  };
  grpc::Status upload(const Plan& plan, PublishResponse* response) {
    grpc::ClientContext context;
    auto stream = pubsub->PublishPayload(&context, response);
    PublishPayloadRequest frame;
    if (plan.header) {
      frame.mutable_header()->set_topic(plan.topic);
      if (plan.declared) frame.mutable_header()->set_size(*plan.declared);
      stream->Write(frame);
    }
    std::uint32_t crc = 0;
    for (std::size_t i = 0; i < plan.chunks; ++i) {
      std::string chunk(plan.chunk_bytes, static_cast<char>('a' + i % 26));
      crc = crc32c(crc, chunk);
      frame.set_chunk(std::move(chunk));
      if (!stream->Write(frame)) break;
      if (i == 0 && plan.second_header) {
        frame.mutable_header();
        stream->Write(frame);
      }
    }
    if (plan.trailer) {
      frame.mutable_trailer()->set_size(plan.trailer_size.value_or(plan.chunks * plan.chunk_bytes));
      frame.mutable_trailer()->set_crc32c(crc + plan.crc_error);
      stream->Write(frame);
      if (plan.after_trailer) stream->Write(frame);
    }
    stream->WritesDone();
    return stream->Finish();
  }
};

TEST_F(UploadTest, PublishesAPayloadThatIsWhole) {
  for (const bool on_loop : {false, true}) {
    log.on_loop = on_loop;
    PublishResponse response;
    const auto status = upload({.chunks = 20, .chunk_bytes = (1 << 20) + 7, .declared = std::nullopt}, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(log.stored().back().body.size(), 20U * ((1 << 20) + 7));
    EXPECT_EQ(log.stored().back().id, response.id());
  }
  PublishResponse response;
  EXPECT_TRUE(upload({.chunks = 3, .chunk_bytes = 10, .declared = 30}, &response).ok());
  EXPECT_TRUE(upload({.chunks = 2, .chunk_bytes = 3 << 20, .declared = std::nullopt}, &response).ok());
  EXPECT_TRUE(upload({.chunks = 0, .declared = 0}, &response).ok());
  EXPECT_TRUE(log.stored().back().body.empty());
}

TEST_F(UploadTest, PublishesNothingElse) {
  PublishResponse response;
  EXPECT_EQ(reason_of(upload({.crc_error = 1}, &response)), "PAYLOAD_CHECKSUM_MISMATCH");
  EXPECT_EQ(reason_of(upload({.trailer_size = 17}, &response)), "PAYLOAD_SIZE_MISMATCH");
  EXPECT_EQ(reason_of(upload({.declared = 17}, &response)), "PAYLOAD_SIZE_MISMATCH");
  EXPECT_EQ(reason_of(upload({.declared = 6 << 20}, &response)), "PAYLOAD_SIZE_MISMATCH");
  EXPECT_EQ(reason_of(upload({.trailer = false}, &response)), "PAYLOAD_STREAM_INCOMPLETE");
  EXPECT_EQ(reason_of(upload({.chunks = 0, .header = false, .trailer = false}, &response)),
            "PAYLOAD_STREAM_INCOMPLETE");
  EXPECT_EQ(reason_of(upload({.header = false}, &response)), "FRAME_OUT_OF_ORDER");
  EXPECT_EQ(reason_of(upload({.second_header = true}, &response)), "FRAME_OUT_OF_ORDER");
  EXPECT_EQ(reason_of(upload({.after_trailer = true}, &response)), "FRAME_OUT_OF_ORDER");
  EXPECT_EQ(reason_of(upload({.topic = "nowhere"}, &response)), "NAMESPACE_NOT_FOUND");
  EXPECT_EQ(reason_of(upload({.topic = "users"}, &response)), "WRONG_API");
  // The chain refuses before it has read anything.
  log.refuse = [](const std::string& /*id*/) {
    return Error{Code::resource_exhausted, "STORAGE_FULL", "full", "", Retry::safe, {}, {}};
  };
  EXPECT_EQ(reason_of(upload({.chunks = 50}, &response)), "STORAGE_FULL");
  EXPECT_EQ(log.count(), 0U);
}

TEST_F(UploadTest, ACancelledUploadPublishesNothing) {
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    PublishResponse response;
    auto stream = pubsub->PublishPayload(&context, &response);
    PublishPayloadRequest frame;
    frame.mutable_header()->set_topic("orders");
    stream->Write(frame);
    for (int c = 0; c < i % 4; ++c) {
      frame.set_chunk(std::string(100'000, 'x'));
      stream->Write(frame);
    }
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  eventually([&] { return server->calls_running() == 0; });
  EXPECT_EQ(log.count(), 0U);
}

// A subscriber by hand.
struct Subscriber {
  explicit Subscriber(PubSubService::Stub& stub, const std::string& ns = {}) {
    if (!ns.empty()) context.AddMetadata("prism-namespace", ns);
    stream = stub.SubscribeStream(&context);
  }
  bool open(std::string topic = "orders", std::uint32_t messages = 0, std::uint64_t bytes = 0, std::string group = {}) {
    SubscribeStreamRequest frame;
    frame.mutable_open()->set_topic(std::move(topic));
    frame.mutable_open()->set_group(std::move(group));
    frame.mutable_open()->set_max_messages(messages);
    frame.mutable_open()->set_max_bytes(bytes);
    stream->Write(frame);
    return stream->Read(&response) && response.has_opened();
  }
  // The next events, or the settled results, whichever frame comes first.
  bool read() {
    if (!stream->Read(&response)) return false;
    for (const auto& e : response.events().events()) events.push_back(e);
    for (const auto& r : response.settled().results()) settled.push_back(r.status());
    return true;
  }
  void read_events(std::size_t n) {
    while (events.size() < n && read()) {
    }
    EXPECT_EQ(events.size(), n);
  }
  void read_settled(std::size_t n) {
    while (settled.size() < n && read()) {
    }
    EXPECT_EQ(settled.size(), n);
  }
  void ack(const std::string& token) {
    SubscribeStreamRequest frame;
    frame.mutable_ack()->add_ack_tokens(token);
    stream->Write(frame);
  }
  grpc::Status finish() {
    stream->WritesDone();
    while (stream->Read(&response)) {
    }
    return stream->Finish();
  }
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<SubscribeStreamRequest, SubscribeStreamResponse>> stream;
  SubscribeStreamResponse response;
  std::vector<Event> events;
  std::vector<SubscribeStreamResponse::Settled::Status> settled;
};
using SettleAnswer = SubscribeStreamResponse::Settled;

TEST_F(ApiTest, SubscribersSettleTheirEvents) {
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(publish(message(std::to_string(i))).ok());
  Subscriber s(*pubsub);
  ASSERT_TRUE(s.open());
  EXPECT_EQ(s.response.opened().group(), "default");
  EXPECT_EQ(s.response.opened().max_messages(), 1000U);
  EXPECT_EQ(s.response.opened().ack_deadline().seconds(), 30);
  s.read_events(4);
  s.ack(s.events[0].ack_token());
  s.read_settled(1);
  s.ack(s.events[0].ack_token());
  s.read_settled(2);
  s.ack("");
  s.read_settled(3);
  SubscribeStreamRequest frame;
  frame.mutable_extend()->add_ack_tokens(s.events[1].ack_token());
  s.stream->Write(frame);
  s.read_settled(4);
  frame.mutable_nack()->add_entries()->set_ack_token(s.events[2].ack_token());
  s.stream->Write(frame);
  s.read_settled(5);
  EXPECT_EQ(s.settled, (std::vector{SettleAnswer::STATUS_OK, SettleAnswer::STATUS_STALE, SettleAnswer::STATUS_INVALID,
                                    SettleAnswer::STATUS_OK, SettleAnswer::STATUS_OK}));
  s.read_events(5);
  EXPECT_EQ(s.events[4].id(), s.events[2].id());
  EXPECT_EQ(s.events[4].attempt(), 2U);
  EXPECT_NE(s.events[4].ack_token(), s.events[2].ack_token());
  EXPECT_TRUE(s.finish().ok());
  // What was not settled goes to the next member of the group.
  Subscriber next(*pubsub);
  ASSERT_TRUE(next.open());
  next.read_events(3);
  EXPECT_TRUE(next.finish().ok());
}

TEST_F(ApiTest, CreditBoundsWhatIsOut) {
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(publish(message(std::string(100, 'x'))).ok());
  Subscriber s(*pubsub);
  ASSERT_TRUE(s.open("orders", 10));
  s.read_events(10);
  EXPECT_EQ(log.delivered(), 10U);
  s.ack(s.events[0].ack_token());
  s.read_events(11);
  EXPECT_EQ(log.delivered(), 11U);
  SubscribeStreamRequest frame;
  frame.mutable_credit()->set_messages(5);
  s.stream->Write(frame);
  s.read_events(16);
  EXPECT_EQ(log.delivered(), 16U);
  frame.mutable_credit()->set_messages(1'000'000);  // more than there may be is as much as there may be
  frame.mutable_credit()->set_bytes(std::numeric_limits<std::uint64_t>::max());
  s.stream->Write(frame);
  s.read_events(50);
  EXPECT_TRUE(s.finish().ok());
  // By bytes: one event is always allowed.
  Subscriber bytes(*pubsub);
  ASSERT_TRUE(bytes.open("orders", 0, 1, "by-bytes"));
  bytes.read_events(1);
  EXPECT_EQ(log.delivered(), 51U);
  EXPECT_TRUE(bytes.finish().ok());
}

TEST_F(ApiTest, SubscribersMustKeepTheProtocol) {
  const auto first = [&](auto change) {
    Subscriber s(*pubsub);
    SubscribeStreamRequest frame;
    change(frame);
    s.stream->Write(frame);
    EXPECT_FALSE(s.read());
    return reason_of(s.finish());
  };
  const auto second = [&](auto change) {
    Subscriber s(*pubsub);
    EXPECT_TRUE(s.open("orders", 0, 0, "protocol"));
    SubscribeStreamRequest frame;
    change(frame);
    s.stream->Write(frame);
    while (s.read()) {
    }
    return reason_of(s.finish());
  };
  EXPECT_EQ(first([](auto& f) { f.mutable_ack()->add_ack_tokens("x"); }), "FRAME_OUT_OF_ORDER");
  EXPECT_EQ(first([](auto& f) { f.mutable_open()->set_topic("nowhere"); }), "NAMESPACE_NOT_FOUND");
  EXPECT_EQ(first([](auto& f) { f.mutable_open()->set_topic("jobs"); }), "WRONG_API");
  EXPECT_EQ(first([](auto& f) {
              f.mutable_open()->set_topic("orders");
              f.mutable_open()->set_group("refused");
            }),
            "GROUP_NOT_DECLARED");
  EXPECT_EQ(first([](auto& f) {
              f.mutable_open()->set_topic("orders");
              f.mutable_open()->set_max_messages(100'001);
            }),
            "CREDIT_OUT_OF_RANGE");
  EXPECT_EQ(first([](auto& f) {
              f.mutable_open()->set_topic("orders");
              f.mutable_open()->mutable_ack_deadline()->set_nanos(1);
            }),
            "DURATION_INVALID");
  EXPECT_EQ(first([](auto& f) {
              f.mutable_open()->set_topic("orders");
              f.mutable_open()->mutable_start()->set_position("?");
            }),
            "POSITION_INVALID");
  EXPECT_EQ(first([](auto& f) {
              f.mutable_open()->set_topic("orders");
              f.mutable_open()->mutable_start()->set_edge(static_cast<pubsub::v1::Start::Edge>(17));
            }),
            "START_INVALID");
  EXPECT_EQ(first([](auto& f) {
              f.mutable_open()->set_topic("orders");
              f.mutable_open()->set_group(std::string(kMaxNameBytes + 1, 'g'));
            }),
            "NAME_TOO_LONG");
  EXPECT_EQ(first([](auto& f) {
              f.mutable_open()->set_topic("orders");
              f.mutable_open()->mutable_ack_deadline()->set_seconds(10);
              f.mutable_open()->mutable_ack_deadline()->set_nanos(-1);
            }),
            "DURATION_INVALID");
  EXPECT_EQ(first([](auto&) {}), "FRAME_OUT_OF_ORDER");
  EXPECT_EQ(second([](auto& f) { f.mutable_open(); }), "FRAME_OUT_OF_ORDER");
  EXPECT_EQ(second([](auto&) {}), "FRAME_OUT_OF_ORDER");
  EXPECT_EQ(second([](auto& f) { f.mutable_ack(); }), "EMPTY_BATCH");
  EXPECT_EQ(second([](auto& f) { f.mutable_nack(); }), "EMPTY_BATCH");
  EXPECT_EQ(second([](auto& f) { f.mutable_extend(); }), "EMPTY_BATCH");
  EXPECT_EQ(second([](auto& f) {
              for (std::size_t i = 0; i <= kMaxBatch; ++i) f.mutable_ack()->add_ack_tokens("x");
            }),
            "BATCH_TOO_LARGE");
  EXPECT_EQ(second([](auto& f) { f.mutable_nack()->add_entries()->set_reason(std::string(1025, 'r')); }),
            "REASON_TOO_LONG");
  EXPECT_EQ(second([](auto& f) {
              f.mutable_extend()->add_ack_tokens("x");
              f.mutable_extend()->mutable_by()->set_nanos(2'000'000'000);
            }),
            "DURATION_INVALID");
  EXPECT_EQ(second([](auto& f) { f.mutable_reject()->add_entries(); }), "METHOD_NOT_AVAILABLE");
  EXPECT_EQ(second([](auto& f) { f.mutable_nack()->add_entries()->mutable_delay()->set_seconds(100'000); }),
            "DURATION_INVALID");
}

struct Pattern final : ByteSource {
  explicit Pattern(std::size_t n, std::optional<Error> e) : left(n), error(std::move(e)) {}
  Task<Result<Bytes>> next(Context /*context*/, std::size_t max) override {
    if (left == 0) {
      if (error) co_return fail(*error);
      co_return Bytes();
    }
    const std::size_t n = std::min(max, left);
    left -= n;
    co_return Bytes(std::string(n, 'x'));
  }
  std::size_t left;
  std::optional<Error> error;
};

TEST_F(ApiTest, LargePayloadsComeInParts) {
  for (const std::size_t size : {std::size_t{5'000'000}, 3 * kPartBytes, kMaxEventBytes, kMaxEventBytes + 1}) {
    for (const bool known : {true, false}) {
      for (const bool simple : {true, false}) {
        log.payload = [=](const testing::Stored& s) {
          if (s.body != "large") return Payload(s.body);
          return Payload(std::make_unique<Pattern>(size, std::nullopt),
                         known ? std::optional<std::uint64_t>(size) : std::nullopt);
        };
        const std::string group = std::to_string(size) + (known ? "k" : "u") + (simple ? "s" : "b");
        for (const char* body : {"small", "large", "small"})
          ASSERT_TRUE(publish(message(body, group), nullptr, "orders").ok());
        std::vector<Event> events;
        std::string payload;
        const auto complete = [&] {
          return !events.empty() && events.back().payload() == "small" && events.size() > 1;
        };
        if (simple) {
          grpc::ClientContext context;
          context.AddMetadata("prism-namespace", "orders");
          SubscribeRequest request;
          request.set_topic(group);
          request.set_group(group);
          auto stream = pubsub->Subscribe(&context, request);
          Event event;
          while (!complete() && stream->Read(&event)) events.push_back(event);
          context.TryCancel();
          (void)stream->Finish();
        } else {
          Subscriber s(*pubsub, "orders");
          ASSERT_TRUE(s.open(group, 0, 0, group));
          while (!complete() && s.read()) events = s.events;
          EXPECT_TRUE(s.finish().ok());
        }
        ASSERT_GE(events.size(), 3U);
        SCOPED_TRACE(group);
        for (std::size_t i = 1; i + 1 < events.size(); ++i) {
          EXPECT_EQ(events[i].id(), events[1].id());
          if (events[i].has_part()) EXPECT_EQ(events[i].part().offset(), payload.size());
          if (i > 1) EXPECT_TRUE(events[i].metadata().empty() && events[i].ack_token().empty());
          payload += events[i].payload();
          EXPECT_LE(events[i].payload().size(), kMaxEventBytes);
        }
        const Event& last = events[events.size() - 2];
        EXPECT_TRUE(payload == std::string(size, 'x')) << payload.size();
        if (last.has_part()) {
          EXPECT_TRUE(last.part().last());
          EXPECT_EQ(last.part().crc32c(), crc32c(0, payload));
          EXPECT_EQ(events[1].part().has_total_size(), known);
        } else {
          EXPECT_TRUE(known && size <= kMaxEventBytes);
        }
      }
    }
  }
}

TEST_F(ApiTest, APayloadThatCannotBeReadIsAnErrorInTheEvent) {
  ASSERT_TRUE(publish(message("x")).ok());
  for (const std::size_t before : {std::size_t{0}, std::size_t{3'000'000}}) {
    log.payload = [=](const testing::Stored& /*s*/) {
      return Payload(std::make_unique<Pattern>(
                         before, Error{Code::data_loss, "PAYLOAD_EXPIRED", "gone", "", Retry::never, {}, {}}),
                     std::nullopt);
    };
    Subscriber s(*pubsub);
    ASSERT_TRUE(s.open("orders", 0, 0, std::to_string(before)));
    while ((s.events.empty() || !s.events.back().has_error()) && s.read()) {
    }
    EXPECT_EQ(s.events.back().error().reason(), "PAYLOAD_EXPIRED");
    EXPECT_EQ(s.events.back().has_part(), before > 0);
    s.ack(s.events.front().ack_token());
    s.read_settled(1);
    EXPECT_EQ(s.settled.at(0), SettleAnswer::STATUS_OK);
    EXPECT_TRUE(s.finish().ok());
  }
}

// The simple form acknowledges for its client: never what a store only refuses for now.
TEST_F(ApiTest, APayloadThatAStoreDoesNotGiveNowComesAgain) {
  ASSERT_TRUE(publish(message("x")).ok());
  std::atomic<int> tries{0};
  log.payload = [&](const testing::Stored& stored) {
    if (tries++ > 0) return Payload(stored.body);
    return Payload(
        std::make_unique<Pattern>(
            0, Error{Code::failed_precondition, "BACKEND_AUTHENTICATION_FAILED", "refused", "", Retry::never, {}, {}}),
        std::nullopt);
  };
  grpc::ClientContext context;
  context.AddMetadata("prism-namespace", "orders");
  SubscribeRequest request;
  request.set_topic("orders");
  request.set_group("later");
  auto stream = pubsub->Subscribe(&context, request);
  Event event;
  ASSERT_TRUE(stream->Read(&event));
  EXPECT_EQ(event.error().reason(), "BACKEND_AUTHENTICATION_FAILED");
  ASSERT_TRUE(stream->Read(&event));
  EXPECT_EQ(event.payload(), "x");
  EXPECT_EQ(event.attempt(), 2U);
  context.TryCancel();
  (void)stream->Finish();
}

TEST_F(ApiTest, ASubscriberThatDoesNotReadStopsTheServersReading) {
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(publish(message(std::string(1 << 20, 'x'))).ok());
  Subscriber s(*pubsub);
  ASSERT_TRUE(s.open("orders", 100'000, 1UL << 30));
  // HTTP/2's window takes some; then nothing moves any more although there is credit.
  std::size_t before = 0;
  do {
    before = log.delivered();
    std::this_thread::sleep_for(
        std::chrono::milliseconds(200));  // long enough to see that nothing moves; more is no error
  } while (log.delivered() != before);
  EXPECT_LT(before, 200U);
  s.read_events(300);
  EXPECT_TRUE(s.finish().ok());
}

TEST_F(ApiTest, ShutdownTellsSubscribersToGo) {
  ASSERT_TRUE(publish(message("x")).ok());
  Subscriber s(*pubsub);
  ASSERT_TRUE(s.open());
  s.read_events(1);
  Subscriber idle(*pubsub);
  ASSERT_TRUE(idle.open("orders", 0, 0, "idle"));
  idle.read_events(1);
  idle.ack(idle.events[0].ack_token());
  idle.read_settled(1);
  grpc::ClientContext simple;
  SubscribeRequest request;
  request.set_topic("orders");
  request.set_group("simple");
  auto stream = pubsub->Subscribe(&simple, request);
  Event event;
  ASSERT_TRUE(stream->Read(&event));
  grpc::ClientContext publishing;
  auto publisher = pubsub->PublishStream(&publishing);
  pubsub::v1::PublishStreamRequest frame;
  *frame.add_messages() = message("y", "other-topic-of-orders");
  pubsub::v1::PublishStreamResponse results;
  publisher->Write(frame);
  ASSERT_TRUE(publisher->Read(&results));

  std::jthread stopping([&] { server->shutdown(std::chrono::seconds(60)); });
  ASSERT_TRUE(s.read());
  EXPECT_EQ(s.response.closing().reason(), "SHUTTING_DOWN");
  s.ack(s.events[0].ack_token());  // what is out may still be settled
  s.read_settled(1);
  EXPECT_EQ(s.settled.at(0), SettleAnswer::STATUS_OK);
  EXPECT_FALSE(s.read());  // everything is settled: no need to wait for the grace to pass
  EXPECT_EQ(reason_of(s.stream->Finish()), "SHUTTING_DOWN");
  EXPECT_TRUE(idle.read());
  EXPECT_TRUE(idle.response.has_closing());
  EXPECT_FALSE(idle.read());
  EXPECT_EQ(reason_of(idle.stream->Finish()), "SHUTTING_DOWN");
  while (stream->Read(&event)) {
  }
  EXPECT_EQ(reason_of(stream->Finish()), "SHUTTING_DOWN");
  EXPECT_FALSE(publisher->Read(&results));
  EXPECT_EQ(reason_of(publisher->Finish()), "SHUTTING_DOWN");
  stopping.join();
  EXPECT_EQ(server->calls_running(), 0U);
}

TEST_F(ApiTest, ClientsThatGoAwayAtAnyMomentLeaveNothingBehind) {
  log.on_loop = true;
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(publish(message(std::string(static_cast<std::size_t>(i) * 50, 'x'))).ok());
  constexpr int kThreads = 4;
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      auto own = PubSubService::NewStub(connect());
      for (int i = 0; i < 60; ++i) {
        grpc::ClientContext context;
        std::jthread canceller;
        if (random() % 2 == 0) {
          context.set_deadline(std::chrono::system_clock::now() + std::chrono::microseconds(random() % 20'000));
        } else {
          canceller = std::jthread([&context, wait = std::chrono::microseconds(random() % 20'000)] {
            std::this_thread::sleep_for(wait);  // the moment is what is random
            context.TryCancel();
          });
        }
        switch (random() % 5) {
          case 0: {
            PublishResponse response;
            (void)own->Publish(&context, message("x"), &response);
            break;
          }
          case 1: {
            auto stream = own->PublishStream(&context);
            pubsub::v1::PublishStreamRequest frame;
            for (int n = 0; n < 20; ++n) *frame.add_messages() = message("x");
            while (stream->Write(frame)) {
            }
            (void)stream->Finish();
            break;
          }
          case 2: {
            PublishResponse response;
            auto stream = own->PublishPayload(&context, &response);
            PublishPayloadRequest frame;
            frame.mutable_header()->set_topic("orders");
            bool ok = stream->Write(frame);
            frame.set_chunk(std::string(100'000, 'x'));
            while (ok) ok = stream->Write(frame);
            (void)stream->Finish();
            break;
          }
          case 3: {
            SubscribeRequest request;
            request.set_topic("orders");
            request.set_group("g" + std::to_string(random() % 3));
            auto stream = own->Subscribe(&context, request);
            Event event;
            while (stream->Read(&event)) {
            }
            (void)stream->Finish();
            break;
          }
          default: {
            auto stream = own->SubscribeStream(&context);
            SubscribeStreamRequest frame;
            frame.mutable_open()->set_topic("orders");
            frame.mutable_open()->set_group("g" + std::to_string(random() % 3));
            frame.mutable_open()->set_max_messages(1 + random() % 50);
            stream->Write(frame);
            SubscribeStreamResponse response;
            while (stream->Read(&response)) {
              frame.Clear();
              for (const auto& e : response.events().events()) frame.mutable_ack()->add_ack_tokens(e.ack_token());
              if (frame.ack().ack_tokens_size() > 0) stream->Write(frame);
            }
            (void)stream->Finish();
          }
        }
      }
    });
  }
  threads.clear();
  eventually([&] { return server->calls_running() == 0; });
  EXPECT_TRUE(publish(message("alive")).ok());
}

TEST(Signal, LosesNoWakeUp) {
  struct Race {
    static Task<void> wait(Signal* signal, std::atomic<int>* woken) {
      co_await signal->wait();
      ++*woken;
    }
  };
  std::atomic<int> woken = 0;
  constexpr int kRounds = 5000;
  Scope scope;
  for (int i = 0; i < kRounds; ++i) {
    Signal signal;
    std::latch go(2);
    std::jthread setter([&] {
      go.arrive_and_wait();
      signal.set();
    });
    go.arrive_and_wait();
    scope.spawn(Race::wait(&signal, &woken));
    setter.join();
    scope.join_blocking();
  }
  EXPECT_EQ(woken, kRounds);
}

TEST(Positions, SurviveTheirText) {
  Position p(PositionPart{random_id(), 3, 1ULL << 60});
  p.merge(Position(PositionPart{random_id(), 0, 0}));
  EXPECT_EQ(*parse_position(position_text(p)), p);
  for (const char* bad : {"x", "!!!!", "AAAA"}) EXPECT_FALSE(parse_position(bad)) << bad;
}

}  // namespace
}  // namespace prism::api
