// libpq, loaded when the first backend is connected (backends/client/library.h).
#pragma once

#include <libpq-fe.h>

#include "base/error.h"

namespace prism::postgres {

// clang-format off
#define PRISM_LIBPQ_FUNCTIONS(X) \
  X(PQbackendPID) \
  X(PQcancel) \
  X(PQclear) \
  X(PQcmdStatus) \
  X(PQcmdTuples) \
  X(PQconnectPoll) \
  X(PQconnectStartParams) \
  X(PQconsumeInput) \
  X(PQenterPipelineMode) \
  X(PQerrorMessage) \
  X(PQexitPipelineMode) \
  X(PQfinish) \
  X(PQflush) \
  X(PQfname) \
  X(PQfreeCancel) \
  X(PQfreemem) \
  X(PQftype) \
  X(PQgetCancel) \
  X(PQgetResult) \
  X(PQgetisnull) \
  X(PQgetlength) \
  X(PQgetvalue) \
  X(PQisBusy) \
  X(PQnfields) \
  X(PQnotifies) \
  X(PQntuples) \
  X(PQpipelineSync) \
  X(PQresultErrorField) \
  X(PQresultErrorMessage) \
  X(PQresultStatus) \
  X(PQsendPrepare) \
  X(PQsendQuery) \
  X(PQsendQueryParams) \
  X(PQsendQueryPrepared) \
  X(PQsetErrorVerbosity) \
  X(PQsetNoticeReceiver) \
  X(PQsetSingleRowMode) \
  X(PQsetnonblocking) \
  X(PQsocket) \
  X(PQstatus) \
  X(PQtransactionStatus)
// clang-format on

// NOLINTBEGIN(readability-identifier-naming,bugprone-macro-parentheses): the library's own names
struct Libpq {
#define X(name) decltype(&::name) name = nullptr;
  PRISM_LIBPQ_FUNCTIONS(X)
#undef X
};
// NOLINTEND(readability-identifier-naming,bugprone-macro-parentheses)

// Loads it where that has not been done. Takes some milliseconds. BACKEND_LIBRARY_MISSING. Any thread.
Result<void> load_libpq();
// Its functions. load_libpq() has been good, or is tried now: then without it the program ends.
const Libpq& pq();

}  // namespace prism::postgres
