variable "project" {
  description = "Google project that all of it is in; the chart's gcp.project"
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project's id has 6 to 30 small letters, digits and hyphens."
  }
}

variable "region" {
  description = "Region of the cluster, the buckets and the database"
  type        = string
  default     = "europe-west4"
}

variable "zones" {
  description = "Zones of the region that have the GPUs; L4 and T4 are not in all of them"
  type        = list(string)
  default     = ["europe-west4-a", "europe-west4-b"]
}

variable "name" {
  description = "Name of the cluster, and the beginning of other names"
  type        = string
  default     = "ztom"
}

variable "namespace" {
  description = "Namespace that the chart is installed into"
  type        = string
  default     = "ztom"
}

variable "administrators" {
  description = "Address ranges that may reach the cluster's API, by what they are"
  type        = map(string)
  default     = {}
}

variable "pools" {
  description = "Pools of machines by name; the chart's pools choose them by the label ztom/pool"
  type = map(object({
    machine     = string
    accelerator = optional(string, "")
    gpus        = optional(number, 0)
    spot        = optional(bool, false)
    min         = optional(number, 0)
    max         = number
    disk_gb     = optional(number, 200)
  }))
  default = {
    head    = { machine = "e2-standard-4", min = 1, max = 2 }
    cpu     = { machine = "n2-standard-8", max = 4 }
    l4      = { machine = "g2-standard-24", accelerator = "nvidia-l4", gpus = 2, max = 2, disk_gb = 400 }
    l4-spot = { machine = "g2-standard-24", accelerator = "nvidia-l4", gpus = 2, max = 4, disk_gb = 400, spot = true }
    t4      = { machine = "n1-standard-8", accelerator = "nvidia-tesla-t4", gpus = 1, max = 2 }
    t4-spot = { machine = "n1-standard-8", accelerator = "nvidia-tesla-t4", gpus = 1, max = 4, spot = true }
  }
}

variable "database_tier" {
  description = "Machine of PostgreSQL: ledger, routing table, audit chain"
  type        = string
  default     = "db-custom-2-8192"
}

variable "redis_gb" {
  description = "Memory of Redis, which keeps what Ray's head knows"
  type        = number
  default     = 1
}

variable "keep_days" {
  description = "Days for which a version of an object that was replaced or deleted is kept"
  type        = number
  default     = 30
}
