// The methods that this version serves; every other one of the contract answers METHOD_NOT_AVAILABLE.
#pragma once

#include <array>

#include "api/call_metrics.h"

namespace prism::api {

inline constexpr std::string_view kPubSubService = "prism.pubsub.v1.PubSubService";
inline constexpr std::string_view kQueueService = "prism.queue.v1.QueueService";
inline constexpr std::string_view kSessionService = "prism.session.v1.SessionService";

// PubSubService and QueueService have the same six, in the same order.
enum class MessagingMethod : std::size_t {
  publish,
  publish_batch,
  publish_stream,
  publish_payload,
  subscribe,
  subscribe_stream
};

inline constexpr std::array<Method, 16> kMethods{{
    {kPubSubService, "Publish", 0},
    {kPubSubService, "PublishBatch", 1},
    {kPubSubService, "PublishStream", 2},
    {kPubSubService, "PublishPayload", 3},
    {kPubSubService, "Subscribe", 4},
    {kPubSubService, "SubscribeStream", 5},
    {kQueueService, "Publish", 6},
    {kQueueService, "PublishBatch", 7},
    {kQueueService, "PublishStream", 8},
    {kQueueService, "PublishPayload", 9},
    {kQueueService, "Subscribe", 10},
    {kQueueService, "SubscribeStream", 11},
    {kSessionService, "Open", 12},
    {kSessionService, "Close", 13},
    {kSessionService, "Refresh", 14},
    {kSessionService, "Describe", 15},
}};

constexpr const Method& messaging_method(bool queue, MessagingMethod method) {
  return kMethods[(queue ? 6 : 0) + static_cast<std::size_t>(method)];
}
constexpr const Method& session_method(std::size_t i) { return kMethods[12 + i]; }

}  // namespace prism::api
