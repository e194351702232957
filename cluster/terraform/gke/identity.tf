# Who acts: machines that pull images and write logs, and the pods, which read and write one bucket.
resource "google_service_account" "nodes" {
  account_id   = "${var.name}-nodes"
  display_name = "Machines of Z-TOM's cluster"
}

resource "google_project_iam_member" "nodes" {
  for_each = toset([
    "roles/logging.logWriter",
    "roles/monitoring.metricWriter",
    "roles/monitoring.viewer",
    "roles/stackdriver.resourceMetadata.writer",
  ])

  project = var.project
  role    = each.key
  member  = google_service_account.nodes.member
}

resource "google_artifact_registry_repository_iam_member" "nodes" {
  repository = google_artifact_registry_repository.images.name
  location   = var.region
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.nodes.member
}

resource "google_service_account" "pods" {
  account_id   = "ztom"
  display_name = "Pods of Z-TOM; the chart's serviceAccount acts as it"
}

resource "google_service_account_iam_member" "pods" {
  service_account_id = google_service_account.pods.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.namespace}/ztom]"
}

resource "google_storage_bucket_iam_member" "pods" {
  bucket = google_storage_bucket.main.name
  role   = "roles/storage.objectUser"
  member = google_service_account.pods.member
}

# External Secrets reads the four secrets as itself, and nothing else.
resource "google_service_account" "secrets" {
  account_id   = "${var.name}-secrets"
  display_name = "External Secrets, for Z-TOM's secrets"
}

resource "google_secret_manager_secret_iam_member" "secrets" {
  for_each  = google_secret_manager_secret.main
  secret_id = each.value.id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.secrets.member
}

resource "google_service_account_iam_member" "secrets" {
  service_account_id = google_service_account.secrets.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[external-secrets/external-secrets]"
}
