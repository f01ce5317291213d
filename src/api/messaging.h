// The handlers behind PubSubService and QueueService.
#pragma once

#include "api/messages.h"
#include "api/router.h"
#include "api/rpc.h"
#include "api/sessions.h"
#include "prism/pubsub/v1/pubsub.pb.h"
#include "prism/queue/v1/queue.pb.h"
#include "runtime/loop.h"

namespace prism::api {

// What all handlers use; it outlives every call.
struct Serving {
  const Router& router;
  Sessions& sessions;
  Runtime& runtime;
  Calls& calls;
  Clock::duration drain_grace;  // how long a subscriber may still settle after Closing
};

// Payloads of events in one frame: as many events as fit, at least one. A larger payload comes in parts.
inline constexpr std::size_t kFrameBytes = 128UL << 10;
inline constexpr std::size_t kFrameEvents = 512;
inline constexpr std::size_t kMaxEventBytes = 1UL << 20;  // a payload larger than this comes in parts
inline constexpr std::size_t kPartBytes = 256UL << 10;

using PublishStreamCall = BidiStream<pubsub::v1::PublishStreamRequest, pubsub::v1::PublishStreamResponse>;
using PublishPayloadCall = ClientStream<pubsub::v1::PublishPayloadRequest>;
using SubscribeStreamCall = BidiStream<pubsub::v1::SubscribeStreamRequest, pubsub::v1::SubscribeStreamResponse>;

Task<grpc::Status> publish(UnaryCall* call, const Serving* serving, Family family, pubsub::v1::PublishRequest* request,
                           pubsub::v1::PublishResponse* response);
Task<grpc::Status> publish_batch(UnaryCall* call, const Serving* serving, Family family,
                                 pubsub::v1::PublishBatchRequest* request, pubsub::v1::PublishBatchResponse* response);
Task<grpc::Status> publish_stream(PublishStreamCall* call, const Serving* serving, Family family);
Task<grpc::Status> publish_payload(PublishPayloadCall* call, const Serving* serving, Family family,
                                   pubsub::v1::PublishResponse* response);
// Event is pubsub::v1::Event or queue::v1::Message.
template <class Event>
Task<grpc::Status> subscribe(ServerStream<Event>* call, const Serving* serving, Family family,
                             const pubsub::v1::SubscribeRequest* request);
Task<grpc::Status> subscribe_stream(SubscribeStreamCall* call, const Serving* serving, Family family);

}  // namespace prism::api
