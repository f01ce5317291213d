#include "api/services.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "api/errors.h"
#include "api/methods.h"
#include "prism/admin/v1/admin.pb.h"
#include "prism/cache/v1/cache.pb.h"
#include "prism/events/v1/events.pb.h"
#include "prism/keyvalue/v1/keyvalue.pb.h"
#include "prism/pubsub/v1/pubsub.grpc.pb.h"
#include "prism/queue/v1/queue.grpc.pb.h"
#include "prism/reader/v1/reader.pb.h"
#include "prism/session/v1/session.grpc.pb.h"
#include "prism/transact/v1/transact.pb.h"
#include "prism/views/v1/views.pb.h"

namespace prism::api {
namespace {

// The request of a unary call belongs to the call, and the handler is the only one to see it: its strings are moved
// out.
template <class Request>
Request* owned(const Request* request) {
  return const_cast<Request*>(request);
}

template <class Base, class Event, Family kFamily>
class MessagingService final : public Base {
 public:
  explicit MessagingService(const Serving& serving) : serving_(serving) {}

  grpc::ServerUnaryReactor* Publish(grpc::CallbackServerContext* context, const pubsub::v1::PublishRequest* request,
                                    pubsub::v1::PublishResponse* response) override {
    return start<UnaryCall>(context, MessagingMethod::publish, [&](UnaryCall* call) {
      return publish(call, &serving_, kFamily, owned(request), response);
    });
  }
  grpc::ServerUnaryReactor* PublishBatch(grpc::CallbackServerContext* context,
                                         const pubsub::v1::PublishBatchRequest* request,
                                         pubsub::v1::PublishBatchResponse* response) override {
    return start<UnaryCall>(context, MessagingMethod::publish_batch, [&](UnaryCall* call) {
      return publish_batch(call, &serving_, kFamily, owned(request), response);
    });
  }
  grpc::ServerBidiReactor<pubsub::v1::PublishStreamRequest, pubsub::v1::PublishStreamResponse>* PublishStream(
      grpc::CallbackServerContext* context) override {
    return start<PublishStreamCall>(context, MessagingMethod::publish_stream,
                                    [&](PublishStreamCall* call) { return publish_stream(call, &serving_, kFamily); });
  }
  grpc::ServerReadReactor<pubsub::v1::PublishPayloadRequest>* PublishPayload(
      grpc::CallbackServerContext* context, pubsub::v1::PublishResponse* response) override {
    return start<PublishPayloadCall>(context, MessagingMethod::publish_payload, [&](PublishPayloadCall* call) {
      return publish_payload(call, &serving_, kFamily, response);
    });
  }
  grpc::ServerWriteReactor<Event>* Subscribe(grpc::CallbackServerContext* context,
                                             const pubsub::v1::SubscribeRequest* request) override {
    return start<ServerStream<Event>>(context, MessagingMethod::subscribe, [&](ServerStream<Event>* call) {
      return subscribe<Event>(call, &serving_, kFamily, request);
    });
  }
  grpc::ServerBidiReactor<pubsub::v1::SubscribeStreamRequest, pubsub::v1::SubscribeStreamResponse>* SubscribeStream(
      grpc::CallbackServerContext* context) override {
    return start<SubscribeStreamCall>(context, MessagingMethod::subscribe_stream, [&](SubscribeStreamCall* call) {
      return subscribe_stream(call, &serving_, kFamily);
    });
  }

 private:
  template <class CallType, class Handler>
  CallType* start(grpc::CallbackServerContext* context, MessagingMethod method, Handler handler) {
    const StallDetector::Stretch stretch(serving_.calls.stalls);
    auto* const call = new CallType(serving_.calls, *context, messaging_method(kFamily == Family::queue, method));
    call->start(handler(call));
    return call;
  }
  const Serving& serving_;
};

using PubSub = MessagingService<pubsub::v1::PubSubService::CallbackService, pubsub::v1::Event, Family::pubsub>;

// Pull and Settle go to NotAvailableService.
using Q = queue::v1::QueueService;
using QueueBase = Q::WithCallbackMethod_Publish<Q::WithCallbackMethod_PublishBatch<
    Q::WithCallbackMethod_PublishStream<Q::WithCallbackMethod_PublishPayload<Q::WithCallbackMethod_Subscribe<
        Q::WithCallbackMethod_SubscribeStream<Q::WithGenericMethod_Pull<Q::WithGenericMethod_Settle<Q::Service>>>>>>>>;
using Queue = MessagingService<QueueBase, queue::v1::Message, Family::queue>;

void set_duration(google::protobuf::Duration* out, Clock::duration value) {
  out->set_seconds(std::chrono::duration_cast<std::chrono::seconds>(value).count());
}
void set_time(google::protobuf::Timestamp* out, WallTime time) {
  const auto micros = time.time_since_epoch().count();
  out->set_seconds(micros / 1'000'000);
  out->set_nanos(static_cast<int>(micros % 1'000'000 * 1000));
}

Task<grpc::Status> open(const Serving* serving, session::v1::OpenRequest* request,
                        session::v1::OpenResponse* response) {
  if (request->client_name().size() > kMaxNameBytes || request->client_version().size() > 100) {
    co_return to_status({Code::invalid_argument,
                         "NAME_TOO_LONG",
                         "client_name has at most 200 bytes, client_version at most 100",
                         "",
                         Retry::never,
                         {},
                         {}});
  }
  if (!request->namespace_().empty()) {
    const auto api = serving->router.api_of(request->namespace_());
    if (!api) co_return to_status(api.error());
    response->set_client_api(std::string(*api));
  }
  auto session =
      serving->sessions.open(std::move(*request->mutable_namespace_()), std::move(*request->mutable_client_name()),
                             std::move(*request->mutable_client_version()));
  if (!session) co_return to_status(session.error());
  response->set_session_id((*session)->id);
  response->set_server_version(PRISM_VERSION);
  response->set_namespace_((*session)->namespace_name);
  set_duration(response->mutable_idle_timeout(), serving->sessions.idle_timeout());
  co_return grpc::Status::OK;
}

Task<grpc::Status> close(const Serving* serving, std::string id) {
  serving->sessions.close(id);
  co_return grpc::Status::OK;
}

Task<grpc::Status> refresh(const Serving* serving, std::string id, session::v1::RefreshResponse* response) {
  const auto session = serving->sessions.use(id);
  if (!session) co_return to_status(session.error());
  set_time(response->mutable_expires_at(),
           wall_now() + std::chrono::duration_cast<std::chrono::microseconds>(serving->sessions.idle_timeout()));
  co_return grpc::Status::OK;
}

Task<grpc::Status> describe(const Serving* serving, std::string id, session::v1::DescribeResponse* response) {
  const auto session = serving->sessions.use(id);
  if (!session) co_return to_status(session.error());
  const auto& s = *session;
  response->set_namespace_(s->namespace_name);
  response->set_client_name(s->client_name);
  response->set_client_version(s->client_version);
  set_time(response->mutable_opened_at(), s->opened);
  set_time(response->mutable_expires_at(),
           wall_now() + std::chrono::duration_cast<std::chrono::microseconds>(serving->sessions.idle_timeout()));
  if (!s->namespace_name.empty()) {
    if (const auto api = serving->router.api_of(s->namespace_name)) response->set_client_api(std::string(*api));
  }
  co_return grpc::Status::OK;
}

class SessionService final : public session::v1::SessionService::CallbackService {
 public:
  explicit SessionService(const Serving& serving) : serving_(serving) {}

  grpc::ServerUnaryReactor* Open(grpc::CallbackServerContext* context, const session::v1::OpenRequest* request,
                                 session::v1::OpenResponse* response) override {
    return start(context, 0, open(&serving_, owned(request), response));
  }
  grpc::ServerUnaryReactor* Close(grpc::CallbackServerContext* context, const session::v1::CloseRequest* request,
                                  session::v1::CloseResponse* /*response*/) override {
    return start(context, 1, close(&serving_, request->session_id()));
  }
  grpc::ServerUnaryReactor* Refresh(grpc::CallbackServerContext* context, const session::v1::RefreshRequest* request,
                                    session::v1::RefreshResponse* response) override {
    return start(context, 2, refresh(&serving_, request->session_id(), response));
  }
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context, const session::v1::DescribeRequest* request,
                                     session::v1::DescribeResponse* response) override {
    return start(context, 3, describe(&serving_, request->session_id(), response));
  }

 private:
  UnaryCall* start(grpc::CallbackServerContext* context, std::size_t method, Task<grpc::Status> body) {
    const StallDetector::Stretch stretch(serving_.calls.stalls);
    auto* const call = new UnaryCall(serving_.calls, *context, session_method(method));
    call->start(std::move(body));
    return call;
  }
  const Serving& serving_;
};

const google::protobuf::MethodDescriptor* find_method(std::string path) {
  // The files of all services are linked in; naming one message of each keeps the linker from dropping them.
  [[maybe_unused]] static const std::array files{admin::v1::ListNamespacesRequest::descriptor(),
                                                 cache::v1::GetRequest::descriptor(),
                                                 events::v1::NewEvent::descriptor(),
                                                 keyvalue::v1::Entry::descriptor(),
                                                 reader::v1::Key::descriptor(),
                                                 transact::v1::Mutation::descriptor(),
                                                 views::v1::GetRequest::descriptor()};
  if (path.starts_with('/')) path.erase(0, 1);
  std::ranges::replace(path, '/', '.');
  return google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(path);
}

}  // namespace

std::vector<std::unique_ptr<grpc::Service>> make_services(const Serving& serving) {
  std::vector<std::unique_ptr<grpc::Service>> out;
  out.push_back(std::make_unique<PubSub>(serving));
  out.push_back(std::make_unique<Queue>(serving));
  out.push_back(std::make_unique<SessionService>(serving));
  return out;
}

grpc::ServerGenericBidiReactor* NotAvailableService::CreateReactor(grpc::GenericCallbackServerContext* context) {
  class Reactor final : public grpc::ServerGenericBidiReactor {
   public:
    explicit Reactor(grpc::Status status) { Finish(std::move(status)); }
    void OnDone() override { delete this; }
  };
  const auto* const method = find_method(context->method());
  if (method != nullptr) return new Reactor(to_status(method_not_available(method->full_name())));
  return new Reactor(to_status({Code::unimplemented,
                                "METHOD_UNKNOWN",
                                "there is no method " + context->method(),
                                "the services of this server can be listed by gRPC reflection",
                                Retry::never,
                                {},
                                {{"method", context->method()}}}));
}

}  // namespace prism::api
