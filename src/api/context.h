// What a request carries: its Context and the namespace that it is bound to.
#pragma once

#include <grpcpp/server_context.h>

#include <stop_token>
#include <string>

#include "api/sessions.h"
#include "runtime/context.h"

namespace prism::api {

struct RequestContext {
  Context context;
  std::string bound;      // the namespace from the session or the header; empty: unbound
  Sessions::Use session;  // none: the call stands alone
  bool traced_by_caller = false;
};

// Reads the headers `prism-session`, `prism-namespace`, `traceparent` and `tracestate` (none or a bad one: a new trace,
// if traces are recorded), and the deadline. SESSION_NOT_FOUND, NAMESPACE_MISMATCH.
Result<RequestContext> request_context(const grpc::CallbackServerContext& server, std::stop_token stop,
                                       Sessions& sessions);

}  // namespace prism::api
