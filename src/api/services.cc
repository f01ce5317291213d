#include "api/services.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "api/errors.h"
#include "api/methods.h"
#include "base/text.h"
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
template <class Message>
Message* owned(const Request<Message>* request) {
  return const_cast<Message*>(&request->message);
}

Task<grpc::Status> refuse(Error error) { co_return to_status(error); }

// A generated service whose methods, by their numbers in the contract, are served by handlers that return a
// Task<grpc::Status>; the others remain as Base has them. Requests come through Request and Frame, so that malformed
// ones are refused with a reason.
template <class Base>
class CheckedService : public Base {
 protected:
  explicit CheckedService(const Serving& serving) : serving_(serving) {}

  template <class In, class Out, class Handler>
  void unary(const Method& method, int number, Handler handler) {
    this->MarkMethodCallback(
        number, new grpc::internal::CallbackUnaryHandler<Request<In>, Out>(
                    [this, &method, handler](grpc::CallbackServerContext* context, const Request<In>* in, Out* out) {
                      return start<UnaryCall>(context, method, [&](UnaryCall* call) {
                        return in->malformed ? refuse(request_malformed(In::descriptor()->full_name()))
                                             : handler(call, owned(in), out);
                      });
                    }));
  }
  template <class In, class Out, class Handler>
  void client_stream(const Method& method, int number, Handler handler) {
    this->MarkMethodCallback(number, new grpc::internal::CallbackClientStreamingHandler<Frame<In>, Out>(
                                         [this, &method, handler](grpc::CallbackServerContext* context, Out* out) {
                                           return start<ClientStream<In>>(context, method, [&](ClientStream<In>* call) {
                                             return handler(call, out);
                                           });
                                         }));
  }
  template <class In, class Out, class Handler>
  void server_stream(const Method& method, int number, Handler handler) {
    this->MarkMethodCallback(number,
                             new grpc::internal::CallbackServerStreamingHandler<Request<In>, Out>(
                                 [this, &method, handler](grpc::CallbackServerContext* context, const Request<In>* in) {
                                   return start<ServerStream<Out>>(context, method, [&](ServerStream<Out>* call) {
                                     return in->malformed ? refuse(request_malformed(In::descriptor()->full_name()))
                                                          : handler(call, &in->message);
                                   });
                                 }));
  }
  template <class In, class Out, class Handler>
  void bidi_stream(const Method& method, int number, Handler handler) {
    this->MarkMethodCallback(number, new grpc::internal::CallbackBidiHandler<Frame<In>, Out>(
                                         [this, &method, handler](grpc::CallbackServerContext* context) {
                                           return start<BidiStream<In, Out>>(context, method, handler);
                                         }));
  }

  const Serving& serving_;

 private:
  template <class CallType, class Handler>
  CallType* start(grpc::CallbackServerContext* context, const Method& method, Handler handler) {
    const StallDetector::Stretch stretch(serving_.calls.stalls);
    auto* const call = new CallType(serving_.calls, *context, method);
    call->start(handler(call));
    return call;
  }
};

template <class Base, class Event, Family kFamily>
class MessagingService final : public CheckedService<Base> {
  template <MessagingMethod kMethod>
  static constexpr const Method& method() {
    return messaging_method(kFamily == Family::queue, kMethod);
  }

 public:
  explicit MessagingService(const Serving& serving) : CheckedService<Base>(serving) {
    using M = MessagingMethod;
    const Serving* const s = &serving;
    this->template unary<pubsub::v1::PublishRequest, pubsub::v1::PublishResponse>(
        method<M::publish>(), 0, [s](auto* call, auto* in, auto* out) { return publish(call, s, kFamily, in, out); });
    this->template unary<pubsub::v1::PublishBatchRequest, pubsub::v1::PublishBatchResponse>(
        method<M::publish_batch>(), 1,
        [s](auto* call, auto* in, auto* out) { return publish_batch(call, s, kFamily, in, out); });
    this->template bidi_stream<pubsub::v1::PublishStreamRequest, pubsub::v1::PublishStreamResponse>(
        method<M::publish_stream>(), 2, [s](auto* call) { return publish_stream(call, s, kFamily); });
    this->template client_stream<pubsub::v1::PublishPayloadRequest, pubsub::v1::PublishResponse>(
        method<M::publish_payload>(), 3, [s](auto* call, auto* out) { return publish_payload(call, s, kFamily, out); });
    this->template server_stream<pubsub::v1::SubscribeRequest, Event>(
        method<M::subscribe>(), 4, [s](auto* call, auto* in) { return subscribe<Event>(call, s, kFamily, in); });
    this->template bidi_stream<pubsub::v1::SubscribeStreamRequest, pubsub::v1::SubscribeStreamResponse>(
        method<M::subscribe_stream>(), 5, [s](auto* call) { return subscribe_stream(call, s, kFamily); });
  }
};

using PubSub = MessagingService<pubsub::v1::PubSubService::Service, pubsub::v1::Event, Family::pubsub>;

// Pull and Settle go to NotAvailableService.
using Q = queue::v1::QueueService;
using Queue = MessagingService<Q::WithGenericMethod_Pull<Q::WithGenericMethod_Settle<Q::Service>>, queue::v1::Message,
                               Family::queue>;

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

class SessionService final : public CheckedService<session::v1::SessionService::Service> {
 public:
  explicit SessionService(const Serving& serving) : CheckedService(serving) {
    namespace v1 = session::v1;
    const Serving* const s = &serving;
    unary<v1::OpenRequest, v1::OpenResponse>(session_method(0), 0,
                                             [s](auto*, auto* in, auto* out) { return open(s, in, out); });
    unary<v1::CloseRequest, v1::CloseResponse>(session_method(1), 1,
                                               [s](auto*, auto* in, auto*) { return close(s, in->session_id()); });
    unary<v1::RefreshRequest, v1::RefreshResponse>(
        session_method(2), 2, [s](auto*, auto* in, auto* out) { return refresh(s, in->session_id(), out); });
    unary<v1::DescribeRequest, v1::DescribeResponse>(
        session_method(3), 3, [s](auto*, auto* in, auto* out) { return describe(s, in->session_id(), out); });
  }
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
                                "there is no method " + shown(context->method()),
                                "the services of this server can be listed by gRPC reflection",
                                Retry::never,
                                {},
                                {{"method", shown(context->method())}}}));
}

}  // namespace prism::api
