#include "api/context.h"

#include <optional>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "telemetry/trace.h"

namespace prism::api {
namespace {

std::string_view view(grpc::string_ref text) { return {text.data(), text.size()}; }

Clock::time_point steady_deadline(std::chrono::system_clock::time_point deadline) {
  if (deadline == std::chrono::system_clock::time_point::max()) return Clock::time_point::max();
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(deadline - std::chrono::system_clock::now());
}

}  // namespace

Result<RequestContext> request_context(const grpc::CallbackServerContext& server, std::stop_token stop,
                                       Sessions& sessions) {
  RequestContext out;
  Context::State state;
  state.deadline = steady_deadline(server.deadline());
  state.stop = std::move(stop);
  std::string_view session;
  std::string_view parent;
  std::string states;
  for (const auto& [key, value] : server.client_metadata()) {
    const std::string_view name = view(key);
    if (name == "prism-namespace") {
      out.bound = view(value);
    } else if (name == "prism-session") {
      session = view(value);
    } else if (name == "traceparent") {
      parent = view(value);
    } else if (name == "tracestate") {  // may come in several headers
      if (!states.empty()) states += ',';
      states += view(value);
    }
  }
  if (!session.empty()) {
    auto use = sessions.use(session);
    if (!use) return fail(std::move(use).error());
    out.session = std::move(*use);
    const std::string& of_session = out.session->namespace_name;
    if (out.bound.empty()) {
      out.bound = of_session;
    } else if (!of_session.empty() && of_session != out.bound) {
      return fail(Code::invalid_argument, "NAMESPACE_MISMATCH",
                  "the session is bound to namespace '" + of_session + "', but the header prism-namespace says '" +
                      shown(out.bound) + "'",
                  "leave the header out, or open a session for that namespace");
    }
    state.session = session;
  }
  const auto caller = TraceContext::parse(parent, states);
  out.traced_by_caller = caller.has_value();
  state.trace = trace::begin_trace(caller ? &*caller : nullptr);
  state.namespace_name = out.bound;
  out.context = Context(std::move(state));
  return out;
}

}  // namespace prism::api
