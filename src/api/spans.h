// The spans of requests and deliveries, and W3C's trace headers on the wire.
//
// A unary request is a span, child of the caller's in the gRPC metadata, else of the one in the message's metadata. Of
// a stream each publish is one: a stream may last for days. A delivery is a span in the trace of its message, and so is
// its acknowledgement.
#pragma once

#include <grpcpp/support/status.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "api/call_metrics.h"
#include "api/context.h"
#include "api/router.h"
#include "telemetry/trace.h"

namespace prism::api {

inline constexpr std::size_t kMaxLinks = 32;  // of one span

// The trace in the metadata of a message; none: there is none, or it is not valid.
template <class Metadata>  // a map of strings
std::optional<TraceContext> trace_of(const Metadata& metadata) {
  const auto parent = metadata.find("traceparent");
  if (parent == metadata.end()) return std::nullopt;
  const auto state = metadata.find("tracestate");
  return TraceContext::parse(parent->second,
                             state != metadata.end() ? std::string_view(state->second) : std::string_view());
}

// What a call keeps to be told of when it ends.
struct CallTrace {
  trace::Span span;
  std::array<std::byte, 16> trace_id{};  // for log lines, as the namespace
  std::string namespace_name;
};

// The span of a whole call; the request's context is inside of it from now on. True: the message's trace is the parent,
// and the message need not carry it.
bool begin_request(RequestContext& request, const Method& method, const std::optional<TraceContext>& of_message,
                   CallTrace& call);
// The span of a part of a stream, and the context inside of it.
trace::Span begin_part(const RequestContext& request, const Method& method, Context& inside);
// With how the call was answered, which ends the span. What is the server's fault is logged, and everything at level
// debug.
void end_request(CallTrace& call, const Method& method, const grpc::Status& status, std::string_view reason,
                 Clock::duration took);

// The trace that a request came with; not valid: none.
TraceContext caller_of(const RequestContext& request);

// The context of what a route's chain does for a request; its namespace may leave out the spans of patterns.
Context enter(const Context& context, const Route& route);
// And of one publish, whose steps are measured.
Context enter_publish(const Context& context, const Route& route);
void describe(CallTrace& call, const Route& route);
void describe(trace::Span& span, const Route& route);

// The span of a delivery, in the trace of its message; empty where that is not recorded. The message carries it on to
// the client.
class Deliveries {
 public:
  Deliveries() = default;
  // `subscriber`: the trace of whoever subscribed, linked to each delivery.
  Deliveries(TraceContext subscriber, const Method& method, std::string topic, std::string group, bool patterns);
  trace::Span deliver(Received& received) const;
  // "Acknowledge", "Return": below a delivery.
  trace::Span settle(const TraceContext& delivery, Settle::Do what) const;

 private:
  std::string service_;
  std::string topic_, group_;
  TraceContext subscriber_;
  bool patterns_ = true;
};

}  // namespace prism::api
