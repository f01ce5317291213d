#include "api/spans.h"

#include "api/errors.h"
#include "patterns/log_ports.h"
#include "telemetry/log.h"

namespace prism::api {
namespace {

// "prism.pubsub.v1.PubSubService" -> "PubSubService"
std::string_view short_service(const Method& method) { return method.service.substr(method.service.rfind('.') + 1); }

// What an operator should see, as far as it is not the client's to mend.
log::Level level_of(const Method& method, const grpc::Status& status, std::string_view reason) {
  switch (status.error_code()) {
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::DATA_LOSS:
    case grpc::StatusCode::UNKNOWN:
      return log::Level::error;
    case grpc::StatusCode::UNAVAILABLE:
      // These are meant to happen, and clients come again by themselves.
      return reason == shutting_down().reason || reason == namespace_replaced().reason ? log::Level::debug
                                                                                       : log::Level::warn;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return log::Level::warn;
    case grpc::StatusCode::DEADLINE_EXCEEDED:  // a subscription lasts as long as its client said
      return method.name.starts_with("Subscribe") ? log::Level::debug : log::Level::warn;
    default:
      return log::Level::debug;
  }
}

trace::Span begin_span(const Context& context, const Method& method) {
  if (!context.trace().recorded) return {};
  std::string name(short_service(method));
  name += '.';
  name += method.name;
  trace::Span span = trace::Span::begin(context, name, trace::Layer::request, trace::Kind::server);
  span.set("rpc.system", "grpc");
  span.set("rpc.service", method.service);
  span.set("rpc.method", method.name);
  return span;
}

}  // namespace

bool begin_request(RequestContext& request, const Method& method, const std::optional<TraceContext>& of_message,
                   CallTrace& call) {
  const bool adopted = of_message && !request.traced_by_caller;
  if (adopted) request.context = request.context.with_trace(trace::begin_trace(&*of_message));
  call.span = begin_span(request.context, method);
  if (call.span) request.context = call.span.context(request.context);
  if (of_message && !adopted) call.span.link(*of_message);
  call.trace_id = request.context.trace().trace_id;
  return adopted;
}

trace::Span begin_part(const RequestContext& request, const Method& method, Context& inside) {
  inside = request.context;
  if (!request.traced_by_caller && trace::active()) {
    // Each part is a trace of its own.
    TraceContext own = trace::begin_trace(nullptr);
    if (own.recorded || inside.trace().recorded) inside = inside.with_trace(std::move(own));
  }
  trace::Span span = begin_span(inside, method);
  inside = span.context(inside);
  return span;
}

void end_request(CallTrace& call, const Method& method, const grpc::Status& status, std::string_view reason,
                 Clock::duration took) {
  if (call.span) {
    call.span.set("rpc.grpc.status_code", static_cast<int>(status.error_code()));
    if (!status.ok()) call.span.fail(reason.empty() ? std::string_view("_OTHER") : reason, status.error_message());
    call.span.end();
  }
  const log::Level level = level_of(method, status, reason);
  if (!log::enabled(level)) return;
  TraceContext trace;
  trace.trace_id = call.trace_id;
  const Context context = Context().in_namespace(call.namespace_name).with_trace(std::move(trace));
  if (status.ok()) {
    log::write(level, context, "request answered",
               {{"service", method.service}, {"method", method.name}, {"duration_ms", took}});
  } else {
    log::write(level, context, "request failed",
               {{"service", method.service},
                {"method", method.name},
                {"code", static_cast<int>(status.error_code())},
                {"reason", reason},
                {"error", status.error_message()},
                {"duration_ms", took}});
  }
}

TraceContext caller_of(const RequestContext& request) {
  return request.traced_by_caller ? request.context.trace() : TraceContext();
}

namespace {
void enter(Context::State& state, const Route& route) {
  state.namespace_name = route.namespace_name;
  if (state.trace.recorded && !route.trace_patterns) state.trace.requests_only = true;
}
}  // namespace

Context enter(const Context& context, const Route& route) {
  return context.changed([&](Context::State& state) { enter(state, route); });
}

Context enter_publish(const Context& context, const Route& route) {
  return context.changed([&](Context::State& state) {
    enter(state, route);
    state.steps = std::make_shared<StepTimes>();
  });
}

void describe(CallTrace& call, const Route& route) {
  describe(call.span, route);
  call.namespace_name = route.namespace_name;
}

void describe(trace::Span& span, const Route& route) {
  if (!span) return;
  span.set("prism.namespace", route.namespace_name);
  span.set("messaging.destination.name", route.topic);
}

Deliveries::Deliveries(TraceContext subscriber, const Method& method, std::string topic, std::string group,
                       bool patterns)
    : service_(short_service(method)),
      topic_(std::move(topic)),
      group_(std::move(group)),
      subscriber_(std::move(subscriber)),
      patterns_(patterns) {}

trace::Span Deliveries::deliver(Received& received) const {
  if (!trace::active() || received.message.attribute("traceparent") == nullptr) return {};
  const auto message = prism::trace_of(received.message);
  if (!message) return {};
  trace::Span span = trace::Span::resume(*message, service_ + ".Deliver", trace::Kind::consumer);
  if (!span) return span;
  if (!patterns_) span.leave_out_patterns();
  span.link(subscriber_);
  span.set("messaging.system", "prism");
  span.set("messaging.operation.name", "deliver");
  span.set("messaging.operation.type", "process");
  span.set("messaging.destination.name", topic_);
  span.set("messaging.consumer.group.name", group_);
  span.set("messaging.message.id", received.message.id);
  span.set("prism.attempt", received.attempt);
  set_trace(received.message, span.trace_or(*message));
  return span;
}

trace::Span Deliveries::settle(const TraceContext& delivery, Settle::Do what) const {
  const bool ack = what == Settle::Do::ack;
  trace::Span span = trace::Span::resume(delivery, service_ + (ack ? ".Acknowledge" : ".Return"), trace::Kind::client);
  span.set("messaging.system", "prism");
  span.set("messaging.operation.name", ack ? "ack" : "nack");
  span.set("messaging.operation.type", "settle");
  span.set("messaging.destination.name", topic_);
  span.set("messaging.consumer.group.name", group_);
  return span;
}

}  // namespace prism::api
